use std::net::TcpListener;
use std::sync::mpsc;

use store::{FaultDisk, MessageId, MessageRecord, Record, SessionKey, Store as _, StoreOptions};

use super::*;
use crate::config::{Environment, load_text};
use crate::rules::RuleSet;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// For an answer that must not come.
const MOMENT: Duration = Duration::from_millis(100);

const LISTENERS: &str = "[[listeners]]\nname = 'tcp'\naddress = '127.0.0.1:0'\nallow_anonymous = true\n";

async fn start(listeners: &str) -> (Server, Storage) {
    let text = format!("[admin]\nenabled = false\n{listeners}");
    let config = load_text(&text, None, &Environment::default()).unwrap().config;
    let storage = Storage::memory();
    (Server::start(&config, &RuleSet::default(), &storage).await.unwrap(), storage)
}

fn gateway(server: &Server, store: Option<DurableStore>) -> Gateway {
    Gateway {
        broker: server.broker().clone(),
        listeners: Arc::clone(server.listeners()),
        store: store.map(Arc::new),
    }
}

/// Owes a message to a session that exists.
fn owe(store: &DurableStore) {
    let session = SessionKey { namespace: 0, client_id: "c" };
    let started = Record::SessionStarted { session, expiry_interval_s: 60 };
    let message = MessageRecord {
        id: MessageId { sequence: 1, ..MessageId::default() },
        topic: "t",
        ..MessageRecord::default()
    };
    store.append(&[started, Record::Message(message)]).unwrap();
}

/// Has a disk hang until the answer is called.
fn hang(disk: &FaultDisk) -> impl FnOnce() {
    let (hangs, it_hangs) = mpsc::channel();
    let (goes_on, it_goes_on) = mpsc::channel::<()>();
    let disk = disk.clone();
    let thread = std::thread::spawn(move || {
        let _held = disk.hold_syncs();
        hangs.send(()).unwrap();
        it_goes_on.recv().unwrap_err();
    });
    it_hangs.recv().unwrap();
    move || {
        drop(goes_on);
        thread.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_of_every_kind_answer_a_knock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mqtt.sock");
    let kinds = [
        LISTENERS.to_owned(),
        LISTENERS.replace("127.0.0.1:0", "0.0.0.0:0"),
        format!("{LISTENERS}kind = 'ws'\n"),
        format!("{LISTENERS}kind = 'auto'\n"),
        format!("{LISTENERS}max_connections = 1\nproxy_protocol = ['10.0.0.0/8']\n"),
        format!(
            "[[listeners]]\nname = 'unix'\nkind = 'unix'\nallow_anonymous = true\npath = '{}'\n",
            path.display()
        ),
    ];
    for listeners in kinds {
        let (server, _storage) = start(&listeners).await;
        let before = server.broker().stats();
        assert_eq!(gateway(&server, None).answers_within(PATIENCE).await, Ok(()), "{listeners}");
        assert!(server.broker().stats().connections_opened > before.connections_opened, "it was the broker");
        server.stop(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_is_earned_in_time_and_never_where_none_is_wanted() {
    let (server, storage) = start(LISTENERS).await;
    let environment: Environment = [("WATCHDOG_USEC", "30000")].into_iter().collect();
    let mut watchdog = Watchdog::new(&environment, &server, &storage);
    for _ in 0..3 {
        watchdog.earned().await;
    }
    let mut unwanted = Watchdog::new(&Environment::default(), &server, &storage);
    assert!(timeout(MOMENT, unwanted.earned()).await.is_err());
    server.stop(Duration::ZERO).await;
    assert!(timeout(MOMENT, watchdog.earned()).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_somebody_holds_without_taking_connections_is_no_answer() {
    // Where nobody else listens, so that nobody else is given the port once it is free.
    let (server, _storage) = start(&LISTENERS.replace("127.0.0.1:0", "127.0.0.2:0")).await;
    let asked = gateway(&server, None);
    let address = server.address().unwrap();
    // The listener is still among those that are asked, and the port is somebody else's, who accepts nothing.
    server.broker().shutdown(Duration::ZERO).await;
    let held = loop {
        match TcpListener::bind(address) {
            Ok(held) => break held,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(asked.clone().answers_within(MOMENT).await, Err(Silence::Listeners));
    drop(held);
    assert_eq!(asked.answers_within(MOMENT).await, Err(Silence::Listeners), "nobody is there at all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_or_has_failed_is_no_answer() {
    let (server, _storage) = start(LISTENERS).await;
    let disk = FaultDisk::default();
    let (store, _) = DurableStore::open_on(Arc::new(disk.clone()), StoreOptions::default()).unwrap();
    owe(&store);
    let asked = gateway(&server, Some(store));
    assert_eq!(asked.clone().answers_within(PATIENCE).await, Ok(()));
    let store = asked.store.clone().unwrap();
    let goes_on = hang(&disk);
    owe(&store);
    assert_eq!(asked.clone().answers_within(MOMENT).await, Err(Silence::Store));
    goes_on();
    assert_eq!(asked.clone().answers_within(PATIENCE).await, Ok(()), "it goes on");
    disk.fail_sync_after(0);
    owe(&store);
    assert_eq!(asked.answers_within(PATIENCE).await, Err(Silence::Store));
}
