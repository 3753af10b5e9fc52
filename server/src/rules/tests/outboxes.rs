//! Queued actions on a store: what they are owed outlives the process, and what becomes of outboxes whose action is gone.

use super::*;

/// A pipeline with its outboxes on a store, inside a broker on the same store.
async fn on_store(text: &str, store: &Arc<DurableStore>) -> (RulePipeline, Broker) {
    let settings = PipelineSettings { store: Some(Arc::clone(store)), ..settings() };
    let pipeline = RulePipeline::new(&rules(text), &settings).unwrap();
    let broker = Broker::new(
        BrokerConfig::default(),
        Arc::<DurableStore>::clone(store),
        Some(Arc::new(pipeline.clone())),
    );
    pipeline.attach(Arc::new(broker.clone()));
    (pipeline, broker)
}

/// The life of a process on the store of a disk, which ends with a power cut once everything so far is on the disk. Returns
/// what the disk holds then.
fn process<F: Future<Output = ()>>(
    disk: &FaultDisk,
    text: &str,
    life: impl FnOnce(Process) -> F,
) -> FaultDisk {
    let options = StoreOptions { segment_bytes: 128 * 1024, ..StoreOptions::default() };
    let store = Arc::new(DurableStore::open_on(Arc::new(disk.clone()), options).unwrap().0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (pipeline, broker) = on_store(text, &store).await;
        life(Process { pipeline, broker, store: Arc::clone(&store) }).await;
        let queue = QueueKey::Outbox { namespace: 0, name: "barrier" };
        let token = store.append(&[Record::Queued { queue, id: None, body: &[] }]).unwrap();
        until(|| store.committed() >= token).await;
    });
    disk.power_cut(7)
}

struct Process {
    pipeline: RulePipeline,
    broker: Broker,
    store: Arc<DurableStore>,
}

fn outbox(store: &DurableStore, name: &str) -> u64 {
    store.queue_len(QueueKey::Outbox { namespace: 0, name })
}

/// Listens at the address of a socket that was kept for it.
fn serve_at(socket: TcpSocket, status: &'static str) -> mpsc::Receiver<String> {
    serve(socket.listen(64).unwrap(), status)
}

/// Waits for something that is on its way.
async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn what_an_action_is_owed_outlives_the_process() {
    let (disk, (closed, socket)) = (FaultDisk::default(), unused_address());
    let text = http_rule(closed, "");
    let disk = process(&disk, &text, async |process| {
        for n in 0..20 {
            process.broker.publish(publish("in/x", &format!("{{\"v\":{n}}}"))).await.unwrap();
        }
        let before = delivery(&process.pipeline, 0);
        assert_eq!((before.received, before.queued + before.in_flight), (20, 20));
        assert_eq!(outbox(&process.store, "r/ops"), 20);
    });
    process(&disk, &text, async |process| {
        // The far side is there now, at the address that the requests were rendered with.
        let mut bodies = serve_at(socket, "200 OK");
        process.broker.publish(publish("in/x", "{\"v\":20}")).await.unwrap();
        for n in 0..=20 {
            assert_eq!(bodies.recv().await.unwrap(), format!("{{\"v\":{n}}}"), "in order, old ones first");
        }
        until(|| delivery(&process.pipeline, 0).delivered == 21).await;
        let counted = delivery(&process.pipeline, 0);
        assert_eq!((counted.queued_at_start, counted.received), (20, 1));
        assert_eq!(outbox(&process.store, "r/ops"), 0);
        assert!(bodies.try_recv().is_err());
    });
}

#[test]
fn an_error_action_with_a_queue_has_an_outbox_too() {
    let (disk, (closed, socket)) = (FaultDisk::default(), unused_address());
    let (failing, fails) = unused_address();
    let text = format!(
        "[rules.r]\nsql = \"SELECT v FROM 'in/#'\"\n[[rules.r.actions]]\nname = 'ops'\ntype = 'http'\nurl = 'http://{failing}/'\n[[rules.r.actions]]\nname = 'bad'\ntype = 'republish'\ntopic = 'out/${{v}}'\n[rules.r.error_action]\ntype = 'http'\nurl = 'http://{closed}/'\n"
    );
    let disk = process(&disk, &text, async |process| {
        let _bodies = serve_at(fails, "400 Bad Request");
        process.broker.publish(publish("in/x", "{\"v\":\"+\"}")).await.unwrap();
        assert!(
            outbox(&process.store, "r/error_action") > 0,
            "what failed at once, with the message's own debts"
        );
        until(|| outbox(&process.store, "r/error_action") == 2).await;
    });
    process(&disk, &text, async |_process| {
        let mut documents = serve_at(socket, "200 OK");
        for expected in ["bad", "ops"] {
            let document: Value = serde_json::from_str(&documents.recv().await.unwrap()).unwrap();
            assert_eq!(document["failures"][0]["failedAction"], expected);
        }
    });
}

#[test]
fn what_an_error_action_republishes_is_safe_before_the_failed_request_is_gone() {
    let (disk, (closed, socket)) = (FaultDisk::default(), unused_address());
    // It outlives each process that serves at it.
    let fails = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    fails.set_nonblocking(true).unwrap();
    let failing = fails.local_addr().unwrap();
    let serve_failing =
        || serve(TcpListener::from_std(fails.try_clone().unwrap()).unwrap(), "400 Bad Request");
    let text = format!(
        "[rules.r]\nsql = \"SELECT v FROM 'in/#'\"\n[[rules.r.actions]]\nname = 'ops'\ntype = 'http'\nurl = 'http://{failing}/'\n[rules.r.error_action]\ntype = 'republish'\ntopic = 'errors/r'\n\
         [rules.watch]\nsql = \"SELECT ruleName FROM 'errors/r'\"\n[[rules.watch.actions]]\nname = 'ops'\ntype = 'http'\nurl = 'http://{closed}/'\n"
    );
    // As long as nobody can publish, the request stays where it is.
    let disk = process(&disk, &text, async |process| {
        process.pipeline.detach();
        let mut bodies = serve_failing();
        process.broker.publish(publish("in/x", "{\"v\":1}")).await.unwrap();
        bodies.recv().await.unwrap();
        until(|| delivery(&process.pipeline, 0).in_flight == 0).await;
        assert_eq!((outbox(&process.store, "r/ops"), dead_letters(&process.store, "r/ops")), (1, 0));
        assert_eq!(stats(&process.pipeline, "r").error_actions, 0);
    });
    // The next process has the same answer, and says so.
    let disk = process(&disk, &text, async |process| {
        let _bodies = serve_failing();
        until(|| dead_letters(&process.store, "r/ops") == 1).await;
        let counted = stats(&process.pipeline, "r");
        assert_eq!((counted.error_actions, counted.error_actions_failed), (1, 0));
    });
    process(&disk, &text, async |process| {
        assert_eq!((outbox(&process.store, "r/ops"), dead_letters(&process.store, "r/ops")), (0, 1));
        let mut documents = serve_at(socket, "200 OK");
        assert_eq!(documents.recv().await.unwrap(), r#"{"ruleName":"r"}"#);
    });
}

fn dead_letters(store: &DurableStore, name: &str) -> u64 {
    store.queue_len(QueueKey::DeadLetters { namespace: 0, name })
}

/// A rule with an action whose far side isn't there, and a queue of two.
fn full_rule(address: SocketAddr, overflow: &str) -> String {
    http_rule(address, &format!("queue = {{ max_items = 2, overflow = '{overflow}' }}"))
        .replace("topic = \"errors/r\"", "topic = \"errors/${output().failures[0].errorMessage}\"")
}

#[test]
fn a_full_outbox_with_backpressure_refuses_the_message() {
    let (disk, (closed, _socket)) = (FaultDisk::default(), unused_address());
    let copy = "[[rules.r.actions]]\nname = 'copy'\ntype = 'http'\nurl = 'http://127.0.0.1:1/'\n";
    let text = format!("{}\n{copy}", full_rule(closed, "backpressure"));
    process(&disk, &text, async |process| {
        for _ in 0..2 {
            process.broker.publish(publish("in/x", "{}")).await.unwrap();
        }
        let refused = process.broker.publish(publish("in/x", "{}")).await;
        assert!(matches!(refused, Err(broker::PublishError::Refused(_))), "{refused:?}");
        assert_eq!((outbox(&process.store, "r/ops"), outbox(&process.store, "r/copy")), (2, 2));
        let stats = stats(&process.pipeline, "r");
        assert_eq!((stats.actions[0].backpressure, stats.error_actions), (1, 0));
        assert_eq!(
            (delivery(&process.pipeline, 0).received, delivery(&process.pipeline, 1).received),
            (2, 2)
        );
    });
}

#[test]
fn what_a_full_outbox_has_no_room_for_is_a_dead_letter_or_gone() {
    for (overflow, letters) in [("dead_letter", 1), ("drop_newest", 0)] {
        let (disk, (closed, _socket)) = (FaultDisk::default(), unused_address());
        let disk = process(&disk, &full_rule(closed, overflow), async |process| {
            for _ in 0..3 {
                process.broker.publish(publish("in/x", "{\"v\":1}")).await.unwrap();
            }
            assert_eq!(outbox(&process.store, "r/ops"), 2);
            assert_eq!(dead_letters(&process.store, "r/ops"), letters);
            let snapshot = delivery(&process.pipeline, 0);
            assert_eq!(snapshot.received, 3);
            assert_eq!(snapshot.dead_lettered_for(DropReason::QueueFull), letters);
            assert_eq!(snapshot.dropped_for(DropReason::QueueFull), 1 - letters);
            let stats = stats(&process.pipeline, "r");
            assert_eq!((stats.error_actions, stats.error_actions_failed), (1, 0), "it failed at once");
        });
        process(&disk, &full_rule(closed, overflow), async |process| {
            assert_eq!(delivery(&process.pipeline, 0).queued_at_start, 2);
            let mut reader = process.store.reader(QueueKey::DeadLetters { namespace: 0, name: "r/ops" });
            for debt in reader.read(store::Position::NOWHERE, 10, 1 << 20).unwrap() {
                let message = debt.message.unwrap();
                assert_eq!((message.topic.as_str(), message.payload.as_slice()), ("in/x", &b"{\"v\":1}"[..]));
            }
        });
    }
}

#[test]
fn a_policy_that_needs_a_store_is_refused_without_one() {
    for overflow in ["dead_letter", "backpressure"] {
        let settings = PipelineSettings::default();
        let error =
            RulePipeline::new(&rules(&full_rule(unused_address().0, overflow)), &settings).unwrap_err();
        let text = std::error::Error::source(&error).unwrap().to_string();
        assert!(text.contains(&format!("queue.overflow: \"{overflow}\" needs a queue on disk")), "{text}");
        let log = format!(
            "[rules.r]\nsql = \"SELECT v FROM 'in/#'\"\n[[rules.r.actions]]\nname = 'note'\ntype = 'log'\nqueue = {{ overflow = '{overflow}' }}"
        );
        let faults =
            RuleSet::from_texts([(Path::new("r.toml"), log.as_str())], &Limits::default()).unwrap_err();
        assert!(faults[0].to_string().contains("needs a queue on disk"), "{}", faults[0]);
    }
    let log = "[rules.r]\nsql = \"SELECT v FROM 'in/#'\"\n[[rules.r.actions]]\nname = 'note'\ntype = 'log'\nqueue = { drain = 'live_first' }";
    let faults = RuleSet::from_texts([(Path::new("r.toml"), log)], &Limits::default()).unwrap_err();
    assert!(
        faults[0].to_string().contains("queue.drain: \"live_first\" needs a queue on disk"),
        "{}",
        faults[0]
    );
}

#[test]
fn an_error_action_sees_after_a_restart_what_it_would_have_seen_before() {
    let (disk, (closed, _socket)) = (FaultDisk::default(), unused_address());
    let text = http_rule(closed, "").replace(
        "topic = \"errors/r\"",
        "topic = \"errors/${clientid()}/${username()}/${sourceip()}/${topic(2)}\"",
    );
    let payload = br#"{"v":1}"#;
    let trace = parking_lot::Mutex::new(String::new());
    let disk = process(&disk, &text, async |process| {
        let message = Message::new("in/x", payload);
        let owed = message.effects(&process.pipeline).owed.into_iter().next().unwrap();
        let origin = actions::delivery::outbox::Body::decode(&owed.body).unwrap().origin;
        *trace.lock() = format!("{:032x}", origin::Origin::decode(origin).unwrap().trace_id);
        // Received long ago, as far as the wall clock is concerned.
        let publication = message.publication();
        let record = store::MessageRecord {
            id: publication.id,
            topic: publication.topic,
            payload,
            received_at_ms: publication.received_at_ms,
            publisher: Some("dev-1"),
            ..store::MessageRecord::default()
        };
        let queue = QueueKey::Outbox { namespace: 0, name: "r/ops" };
        let queued = Record::Queued { queue, id: Some(record.id), body: &owed.body };
        process.store.append(&[Record::Message(record), queued]).unwrap();
    });
    process(&disk, &text, async |process| {
        let (sender, mut published) = mpsc::channel(10);
        process.pipeline.attach(Arc::new(Published(sender)));
        let message = published.recv().await.unwrap();
        assert_eq!(message.topic, "errors/dev-1/user/192.0.2.7/x");
        let document: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(document["traceId"], *trace.lock());
        assert_eq!(document["failures"][0]["failedAction"], "ops");
        assert_eq!(document["base64OriginalPayload"], STANDARD.encode(payload));
        until(|| dead_letters(&process.store, "r/ops") == 1).await;
        until(|| delivery(&process.pipeline, 0).dead_lettered_for(DropReason::Expired) == 1).await;
    });
}

#[test]
fn what_owes_something_does_not_go_without_a_word() {
    let (disk, (closed, socket)) = (FaultDisk::default(), unused_address());
    let keep =
        "[rules.other]\nsql = \"SELECT * FROM 'x'\"\n[[rules.other.actions]]\nname = 'a'\ntype = 'log'\n";
    process(&disk, &http_rule(closed, ""), async |process| {
        for _ in 0..3 {
            process.broker.publish(publish("in/x", "{}")).await.unwrap();
        }
        let renamed = http_rule(closed, "").replace("name = \"ops\"", "name = \"dev\"");
        let other_kind = http_rule(closed, "")
            .replace("retry =", "#")
            .replace("type = \"http\"\n        url", "type = \"log\"\n        message");
        for text in [keep, &renamed, &other_kind] {
            let error = process.pipeline.replace(&rules(text)).unwrap_err();
            assert!(
                error.to_string().starts_with("action \"r/ops\" is gone, and 3 requests wait in its outbox"),
                "{error}"
            );
        }
        assert_eq!(stats(&process.pipeline, "r").actions[0].name, "ops", "the rules that ran go on");
        // A rule that is switched off and on again has its outbox still.
        let off = http_rule(closed, "").replace("[rules.r]", "[rules.r]\nenabled = false");
        process.pipeline.replace(&rules(&off)).unwrap();
        let error = process.pipeline.replace(&rules(keep)).unwrap_err();
        assert!(error.to_string().contains("\"r/ops\""), "{error}");
        process.pipeline.replace(&rules(&http_rule(closed, ""))).unwrap();
        assert_eq!(outbox(&process.store, "r/ops"), 3);
        let mut bodies = serve_at(socket, "200 OK");
        for _ in 0..3 {
            bodies.recv().await.unwrap();
        }
        until(|| outbox(&process.store, "r/ops") == 0).await;
        process.pipeline.replace(&rules(keep)).unwrap();
    });
}

#[test]
fn on_remove_says_what_becomes_of_an_outbox() {
    for (on_remove, letters, in_action) in [
        ("drain", 0, true),
        ("drain", 0, false),
        ("dead_letter", 3, true),
        ("dead_letter", 3, false),
        ("purge", 0, true),
        ("purge", 0, false),
    ] {
        let (disk, (closed, socket)) = (FaultDisk::default(), unused_address());
        let key = format!("on_remove = \"{on_remove}\"");
        let text = if in_action {
            http_rule(closed, &key)
        } else {
            http_rule(closed, "").replace("[rules.r]", &format!("[rules.r]\n{key}"))
        };
        process(&disk, &text, async |process| {
            for n in 0..3 {
                process.broker.publish(publish("in/x", &format!("{{\"v\":{n}}}"))).await.unwrap();
            }
            process.pipeline.replace(&rules("")).unwrap();
            assert!(process.pipeline.stats().is_empty());
            if on_remove == "drain" {
                assert_eq!(outbox(&process.store, "r/ops"), 3);
                let mut bodies = serve_at(socket, "200 OK");
                for n in 0..3 {
                    assert_eq!(bodies.recv().await.unwrap(), format!("{{\"v\":{n}}}"));
                }
            }
            until(|| outbox(&process.store, "r/ops") == 0).await;
            assert_eq!(dead_letters(&process.store, "r/ops"), letters, "{on_remove}");
            // The name is free again.
            until(|| process.pipeline.replace(&rules(&text)).is_ok()).await;
        });
    }
}

#[test]
fn a_start_keeps_what_belongs_to_nobody_unless_a_rule_says_otherwise() {
    let (disk, (closed, _socket)) = (FaultDisk::default(), unused_address());
    let disk = process(&disk, &http_rule(closed, ""), async |process| {
        process.broker.publish(publish("in/x", "{}")).await.unwrap();
    });
    let renamed = http_rule(closed, "").replace("name = \"ops\"", "name = \"dev\"");
    let disk = process(&disk, &renamed, async |process| {
        assert_eq!(outbox(&process.store, "r/ops"), 1);
        let orphans = process.pipeline.orphans();
        assert!(orphans.contains(&("r/ops".to_owned(), 1)), "{orphans:?}");
        process.pipeline.replace(&rules(&renamed)).unwrap();
    });
    let purged = renamed.replace("[rules.r]", "[rules.r]\non_remove = \"dead_letter\"");
    process(&disk, &purged, async |process| {
        until(|| outbox(&process.store, "r/ops") == 0).await;
        assert_eq!(dead_letters(&process.store, "r/ops"), 1);
        until(|| !process.pipeline.orphans().iter().any(|(name, _)| name == "r/ops")).await;
    });
}

#[test]
fn a_rule_that_is_switched_off_pays_what_it_owes() {
    let (disk, (closed, socket)) = (FaultDisk::default(), unused_address());
    let disk = process(&disk, &http_rule(closed, ""), async |process| {
        process.broker.publish(publish("in/x", "{\"v\":1}")).await.unwrap();
    });
    let off = http_rule(closed, "").replace("[rules.r]", "[rules.r]\nenabled = false");
    process(&disk, &off, async |process| {
        let mut bodies = serve_at(socket, "200 OK");
        assert_eq!(bodies.recv().await.unwrap(), "{\"v\":1}");
        until(|| outbox(&process.store, "r/ops") == 0).await;
    });
}
