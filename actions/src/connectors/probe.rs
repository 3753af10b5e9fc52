//! A connection test: the way to a far side, stage by stage, with what each took and why it went no further.
//!
//! Nothing is sent that could have an effect there, and it ends in bounded time. What is told is for people, and holds no secret.

use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::Connector;
use super::dial::{Dialer, Endpoint};

/// Longest time for a whole test.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(15);

/// A stage of a test, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestStage {
    /// The name is looked up.
    Name,
    /// The addresses are held against those that may be connected to.
    Address,
    /// A connection is made.
    Connect,
    /// TLS is set up, and the certificate judged.
    Tls,
    /// We say who we are, with a request that changes nothing.
    Authentication,
}

impl TestStage {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Address => "address",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Authentication => "authentication",
        }
    }
}

/// What came of one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestStep {
    /// As `host:port`.
    pub server: String,
    /// Which stage.
    pub stage: TestStage,
    /// Whether it went well. What follows a stage that didn't is not tried.
    pub passed: bool,
    /// What was found, or why it failed.
    pub detail: String,
    /// How long it took.
    pub took: Duration,
}

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectorTest {
    /// Each stage that was tried; of several servers those before the one that answered, too.
    pub steps: Vec<TestStep>,
    /// Whether the far side took us.
    pub passed: bool,
    /// Why nothing could be tried, if nothing could.
    pub note: Option<&'static str>,
}

impl Connector {
    /// Tries the way to the far side. Nothing that is sent has an effect there. Ends within [`TEST_TIMEOUT`].
    pub async fn test(&self) -> ConnectorTest {
        let mut probe = Probe::new();
        let passed = match self {
            Self::Http(connector) => connector.probe(&mut probe).await,
            Self::Nats(connector) => connector.probe(&mut probe).await,
            Self::Amqp(connector) => connector.probe(&mut probe).await,
            Self::Kafka(connector) => connector.probe(&mut probe).await,
            Self::Redis(connector) => connector.probe(&mut probe).await,
        };
        ConnectorTest { steps: probe.steps, passed: passed && probe.note.is_none(), note: probe.note }
    }

    /// Where it leads, without paths and credentials: origins, servers, or the hosts that actions may name.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        match self {
            Self::Http(connector) => connector.addresses(),
            Self::Nats(connector) => connector.addresses(),
            Self::Amqp(connector) => connector.addresses(),
            Self::Kafka(connector) => connector.addresses(),
            Self::Redis(connector) => connector.addresses(),
        }
    }
}

/// A test on its way.
pub(crate) struct Probe {
    steps: Vec<TestStep>,
    note: Option<&'static str>,
    deadline: Instant,
}

impl Probe {
    fn new() -> Self {
        Self { steps: Vec::new(), note: None, deadline: Instant::now() + TEST_TIMEOUT }
    }

    /// Says why nothing can be tried.
    pub(crate) const fn nothing_to_try(&mut self, why: &'static str) {
        self.note = Some(why);
    }

    /// Runs one stage and notes what came of it. `None`: it failed.
    pub(crate) async fn step<T>(
        &mut self,
        server: &str,
        stage: TestStage,
        work: impl Future<Output = Result<(T, String), String>>,
    ) -> Option<T> {
        let began = Instant::now();
        let outcome = timeout_at(self.deadline, work).await;
        let outcome =
            outcome.unwrap_or_else(|_| Err(format!("no end within {TEST_TIMEOUT:?} for the whole test")));
        let (found, detail) = match outcome {
            Ok((found, detail)) => (Some(found), detail),
            Err(detail) => (None, detail),
        };
        self.steps.push(TestStep {
            server: server.to_owned(),
            stage,
            passed: found.is_some(),
            detail,
            took: began.elapsed(),
        });
        found
    }
}

impl Dialer {
    /// Connects to a server stage by stage, as [`Dialer::connect`] does in one go. Whether it came through.
    pub(crate) async fn probe(&self, server: &Endpoint, probe: &mut Probe) -> bool {
        let label = server.to_string();
        let lookup = async {
            let found = lookup_host((server.host.as_str(), server.port)).await;
            let found: Vec<_> = found.map_err(|error| error.to_string())?.collect();
            let shown: Vec<_> = found.iter().map(|address| address.ip().to_string()).collect();
            if found.is_empty() {
                Err("the name has no address".to_owned())
            } else {
                Ok((found, shown.join(", ")))
            }
        };
        let Some(found) = probe.step(&label, TestStage::Name, lookup).await else { return false };
        let judge = async {
            let mut allowed = Vec::new();
            let mut refused = None;
            for address in found {
                match self.targets.check(&server.host, address) {
                    Ok(()) => allowed.push(address),
                    Err(error) => refused = Some(error),
                }
            }
            match refused {
                Some(error) if allowed.is_empty() => Err(error.to_string()),
                _ => {
                    let text = format!("{} may be connected to", allowed.len());
                    Ok((allowed, text))
                }
            }
        };
        let Some(allowed) = probe.step(&label, TestStage::Address, judge).await else { return false };
        let connect = async {
            let limit = Instant::now() + self.timeout;
            let tcp = timeout_at(limit, TcpStream::connect(&*allowed)).await;
            let tcp = tcp.map_err(|_| format!("no connection within {:?}", self.timeout))?;
            let tcp = tcp.map_err(|error| error.to_string())?;
            let peer = tcp.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
            Ok((tcp, format!("connected to {peer}")))
        };
        let Some(tcp) = probe.step(&label, TestStage::Connect, connect).await else { return false };
        let Some(tls) = &self.tls else { return true };
        let hello = async {
            let name = ServerName::try_from(server.host.clone())
                .map_err(|_| "no name that a certificate could be for".to_owned())?;
            let limit = Instant::now() + self.timeout;
            let stream = timeout_at(limit, TlsConnector::from(tls.clone()).connect(name, tcp)).await;
            let stream = stream.map_err(|_| format!("no end of it within {:?}", self.timeout))?;
            let stream = stream.map_err(|error| error.to_string())?;
            let version = stream.get_ref().1.protocol_version();
            let version = version.and_then(|version| version.as_str()).unwrap_or("TLS");
            Ok(((), format!("{version}, the certificate is trusted")))
        };
        probe.step(&label, TestStage::Tls, hello).await.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::connectors::{ConnectorConfig, Connectors};
    use crate::targets::TargetPolicy;
    use crate::testing::closed;

    fn connector(toml: &str) -> Connector {
        let config: ConnectorConfig = toml::from_str(toml).unwrap();
        let name = "c".to_owned();
        let loaded = Connectors::load([(&name, &config)], &TargetPolicy::default(), &Connectors::default());
        loaded.unwrap().get("c").unwrap().clone()
    }

    fn http(address: SocketAddr, more: &str) -> Connector {
        connector(&format!("type = 'http'\nurl = 'http://{address}/secret-path'\n{more}"))
    }

    const ALLOWED: &str = "allow_private = ['127.0.0.1']\n";

    fn stages(test: &ConnectorTest) -> Vec<(&'static str, bool)> {
        test.steps.iter().map(|step| (step.stage.as_str(), step.passed)).collect()
    }

    /// Answers one request, and hands it back with the number of connections that there were.
    async fn asked(listener: &TcpListener, answer: &str) -> String {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 8_192];
            let count = stream.read(&mut request).await.unwrap();
            // The connection of its own stage says nothing.
            if count > 0 {
                let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
                return String::from_utf8_lossy(request.get(..count).unwrap()).into_owned();
            }
        }
    }

    #[tokio::test]
    async fn an_address_that_is_not_allowed_is_not_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let test = http(listener.local_addr().unwrap(), "").test().await;
        assert_eq!(stages(&test), [("name", true), ("address", false)]);
        assert!(!test.passed && test.steps[1].detail.contains("allow_private"), "{test:?}");
    }

    #[tokio::test]
    async fn where_nobody_listens_it_ends_at_the_connection() {
        let (closed, _socket) = closed();
        let test = http(closed, ALLOWED).test().await;
        assert_eq!(stages(&test), [("name", true), ("address", true), ("connect", false)]);
        assert!(!test.passed);
    }

    #[tokio::test]
    async fn a_server_without_tls_is_told_from_one_with_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plain = tokio::spawn(async move { asked(&listener, "400 Bad Request").await });
        let test = connector(&format!("type = 'http'\nurl = 'https://{address}/'\n{ALLOWED}")).test().await;
        assert_eq!(stages(&test).last(), Some(&("tls", false)), "{test:?}");
        assert!(!test.passed);
        plain.abort();
    }

    #[tokio::test]
    async fn credentials_are_shown_once_and_never_told() {
        for (answer, passed, word) in [
            ("204 No Content", true, "204"),
            ("404 Not Found", true, "says nothing"),
            ("302 Found\r\nLocation: http://127.0.0.1:1/", true, "isn't followed"),
            ("401 Unauthorized", false, "credentials are refused"),
            ("403 Forbidden", false, "credentials are refused"),
            ("503 Service Unavailable", false, "unwell"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let auth = format!("{ALLOWED}auth = {{ type = 'bearer', token = 'canary-token' }}\n");
            let connector = http(listener.local_addr().unwrap(), &auth);
            let (request, test) = tokio::join!(asked(&listener, answer), connector.test());
            assert!(request.starts_with("HEAD /secret-path/ HTTP/1.1\r\n"), "{request}");
            assert!(request.to_lowercase().contains("authorization: bearer canary-token\r\n"), "{request}");
            let last = test.steps.last().unwrap();
            assert_eq!((test.passed, last.stage), (passed, TestStage::Authentication), "{answer}");
            assert!(last.detail.contains(word), "{answer}: {}", last.detail);
            let told = format!("{test:?} {:?}", connector.addresses());
            assert!(!told.contains("canary") && !told.contains("secret-path"), "{told}");
        }
    }

    #[tokio::test]
    async fn a_connector_without_an_address_has_nothing_to_try() {
        let connector = connector("type = 'http'\nallowed_hosts = ['*.tenants.example']\n");
        let test = connector.test().await;
        assert!(!test.passed && test.steps.is_empty() && test.note.is_some(), "{test:?}");
        assert_eq!(connector.addresses(), ["*.tenants.example"]);
    }

    #[tokio::test]
    async fn every_server_is_tried_until_one_answers() {
        let ((one, _one), (other, _other)) = (closed(), closed());
        let connector = connector(&format!(
            "type = 'redis'\nservers = ['{one}', '{other}']\npassword = 'canary'\n{ALLOWED}"
        ));
        let test = connector.test().await;
        let way = [("name", true), ("address", true), ("connect", false)];
        assert_eq!(stages(&test), [way, way].concat());
        assert!(!test.passed && !format!("{test:?}").contains("canary"));
        assert_eq!(connector.addresses(), [one.to_string(), other.to_string()]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_test_ends_in_bounded_time() {
        let mut probe = Probe::new();
        let began = Instant::now();
        let never = std::future::pending::<Result<((), String), String>>();
        assert!(probe.step("h:1", TestStage::Connect, never).await.is_none());
        assert_eq!(began.elapsed(), TEST_TIMEOUT);
        assert!(!probe.steps[0].passed && probe.steps[0].detail.contains("15s"), "{:?}", probe.steps);
    }
}
