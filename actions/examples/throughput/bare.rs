//! What sending costs without us: the same library in the leanest loop that waits for every confirmation, a batch at a time.
//!
//! NATS is spoken over a plain socket, since our driver speaks it itself: nothing can be leaner than that loop.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::SystemTime;

use async_rs::Runtime;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{AsyncTcpStream, BasicProperties, Confirmation};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use crate::runtime::Tokio;
use crate::{Run, Target, Watch, payload};

/// Messages that the far side keeps, so that it stays as it is for the whole run.
const KEPT: u32 = 10_000;

impl Target {
    pub(crate) async fn bare(&self, items: usize, batch: usize) -> Run {
        match self.kind.as_str() {
            "amqp" => self.bare_amqp(items, batch).await,
            "http" => self.bare_http(items, batch).await,
            "nats" => self.bare_nats(items, batch).await,
            "redis" => self.bare_redis(items, batch).await,
            other => panic!("no bare loop for \"{other}\""),
        }
    }

    async fn connected(&self) -> TcpStream {
        let tcp = TcpStream::connect(&self.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp
    }

    async fn bare_redis(&self, items: usize, batch: usize) -> Run {
        let mut info = redis::RedisConnectionInfo::default();
        if let Some(password) = &self.password {
            info = info.set_password(password);
        }
        let settings = redis::AsyncConnectionConfig::new();
        let tcp = self.connected().await;
        let hello = redis::aio::MultiplexedConnection::new_with_config(&info, tcp, settings);
        let (mut redis, driver) = hello.await.unwrap();
        tokio::spawn(driver);
        let payload = payload();
        let watch = Watch::start();
        for begin in (0..items).step_by(batch) {
            let mut pipeline = redis::Pipeline::with_capacity(batch);
            for n in begin..begin + batch {
                let entry = pipeline.cmd("XADD").arg("bare").arg("MAXLEN").arg("~").arg(KEPT).arg("*");
                entry.arg("value").arg(&payload[..]).arg("Idempotency-Key").arg(key(n));
            }
            let () = pipeline.query_async(&mut redis).await.unwrap();
        }
        watch.stop(items)
    }

    /// Declares the queues of both loops too.
    async fn bare_amqp(&self, items: usize, batch: usize) -> Run {
        let user = self.user.as_deref().unwrap_or("guest");
        let password = self.password.as_deref().unwrap_or("guest");
        let uri = format!("amqp://{user}:{password}@{}/%2f", self.address);
        let tcp = Mutex::new(Some(self.connected().await.compat()));
        let connect = async move |_, _| Ok(AsyncTcpStream::Plain(tcp.lock().unwrap().take().unwrap()));
        let runtime = Runtime::new(Tokio(tokio::runtime::Handle::current()));
        let properties = lapin::ConnectionProperties::default();
        let connection = lapin::Connection::connector(uri.parse().unwrap(), runtime, connect, properties);
        let connection = connection.await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        for queue in ["bare", "sink"] {
            let mut arguments = FieldTable::default();
            arguments.insert("x-max-length".into(), AMQPValue::LongUInt(KEPT));
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(queue.into(), options, arguments).await.unwrap();
        }
        let payload = payload();
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let watch = Watch::start();
        for begin in (0..items).step_by(batch) {
            let mut confirms = Vec::with_capacity(batch);
            for n in begin..begin + batch {
                let mut headers = FieldTable::default();
                headers.insert("Idempotency-Key".into(), AMQPValue::LongString(key(n).into()));
                let properties = BasicProperties::default().with_delivery_mode(2).with_headers(headers);
                let publish = channel.basic_publish("".into(), "bare".into(), options, &payload, properties);
                confirms.push(publish.await.unwrap());
            }
            for confirm in confirms {
                assert_eq!(confirm.await.unwrap(), Confirmation::Ack(None));
            }
        }
        watch.stop(items)
    }

    /// Makes the stream of both loops too.
    async fn bare_nats(&self, items: usize, batch: usize) -> Run {
        let mut nats = BufReader::new(self.connected().await);
        let user = self.user.as_deref().unwrap_or_default();
        let password = self.password.as_deref().unwrap_or_default();
        let stream = format!(
            r#"{{"name":"BENCH","subjects":["bare.>","sink.>"],"storage":"file","max_msgs":{KEPT}}}"#
        );
        let hello = format!(
            "CONNECT {{\"verbose\":false,\"headers\":true,\"user\":\"{user}\",\"pass\":\"{password}\"}}\r\n\
             SUB _INBOX.b.* 1\r\nPUB $JS.API.STREAM.CREATE.BENCH _INBOX.b.0 {}\r\n{stream}\r\n",
            stream.len()
        );
        nats.write_all(hello.as_bytes()).await.unwrap();
        assert!(acknowledged(&mut nats).await.contains("BENCH"));
        let payload = payload();
        let watch = Watch::start();
        let mut out = Vec::new();
        for begin in (0..items).step_by(batch) {
            out.clear();
            for n in begin..begin + batch {
                let header = format!("NATS/1.0\r\nNats-Msg-Id: {}\r\n\r\n", key(n));
                let total = header.len() + payload.len();
                let line = format!("HPUB bare.a _INBOX.b.{} {} {total}\r\n", n - begin, header.len());
                for part in [line.as_bytes(), header.as_bytes(), &payload[..], b"\r\n"] {
                    out.extend_from_slice(part);
                }
            }
            nats.write_all(&out).await.unwrap();
            for _ in 0..batch {
                assert!(!acknowledged(&mut nats).await.contains("\"error\""));
            }
        }
        watch.stop(items)
    }

    async fn bare_http(&self, items: usize, batch: usize) -> Run {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}/bare", self.address);
        let payload = payload();
        let watch = Watch::start();
        for begin in (0..items).step_by(batch) {
            let mut body = Vec::with_capacity(batch * (payload.len() + 1) + 2);
            if batch > 1 {
                for n in 0..batch {
                    body.push(if n == 0 { b'[' } else { b',' });
                    body.extend_from_slice(&payload);
                }
                body.push(b']');
            } else {
                body.extend_from_slice(&payload);
            }
            let request = http.post(&url).header("content-type", "application/json");
            let answer = request.header("idempotency-key", key(begin)).body(body).send().await.unwrap();
            assert!(answer.status().is_success());
            answer.bytes().await.unwrap();
        }
        watch.stop(items)
    }
}

/// A key as long as ours, another one in every run: a stream of NATS knows keys again for two minutes.
fn key(n: usize) -> String {
    static BEGIN: LazyLock<u128> =
        LazyLock::new(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos());
    static LOOPS: AtomicUsize = AtomicUsize::new(0);
    let run = if n == 0 { LOOPS.fetch_add(1, Ordering::Relaxed) } else { LOOPS.load(Ordering::Relaxed) };
    format!("{:020x}{run:02x}{n:010x}", *BEGIN)
}

/// The next message's payload; what else the server says is read over.
async fn acknowledged(nats: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        nats.read_line(&mut line).await.unwrap();
        if line.starts_with("MSG ") {
            let bytes: usize = line.trim_end().rsplit(' ').next().unwrap().parse().unwrap();
            let mut payload = vec![0; bytes + 2];
            nats.read_exact(&mut payload).await.unwrap();
            return String::from_utf8(payload).unwrap();
        }
        assert!(!line.starts_with("-ERR") && !line.is_empty(), "{line}");
        if line.starts_with("PING") {
            nats.write_all(b"PONG\r\n").await.unwrap();
        }
    }
}
