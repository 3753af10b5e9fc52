//! Queued actions with a server, their queues in memory.

use super::*;

#[tokio::test]
async fn queued_requests_reach_the_server_in_order() {
    let (address, mut bodies) = server("200 OK").await;
    let pipeline = pipeline(&http_rule(address, ""));
    for n in 0..20 {
        let payload = format!("{{\"v\":{n}}}");
        assert!(Message::new("in/x", payload.as_bytes()).run(&pipeline).is_empty());
    }
    for n in 0..20 {
        assert_eq!(bodies.recv().await.unwrap(), format!("{{\"v\":{n}}}"));
    }
    pipeline.shutdown(Duration::from_secs(30)).await;
    let stats = stats(&pipeline, "r");
    let delivery = stats.actions[0].delivery.as_ref().unwrap();
    assert!(delivery.is_conserved());
    assert_eq!((stats.actions[0].requests, delivery.delivered), (20, 20));
    assert_eq!(stats.error_actions, 0);
}

#[tokio::test]
async fn what_fails_at_once_is_one_document_and_what_fails_later_one_each() {
    let (address, mut bodies) = server("503 Busy").await;
    let more = format!(
        "[[rules.r.actions]]\nname = 'bad'\ntype = 'republish'\ntopic = 'out/${{v}}'\n[[rules.r.actions]]\nname = 'worse'\ntype = 'republish'\ntopic = 'out/${{v}}'\n[[rules.r.actions]]\nname = 'second'\ntype = 'http'\nurl = 'http://{address}/'\nretry = {{ max_attempts = 1 }}\n"
    );
    let pipeline = pipeline(&http_rule(address, &more));
    let (sender, mut published) = mpsc::channel(10);
    pipeline.attach(Arc::new(Published(sender)));
    let payload = br#"{"v":"+"}"#;
    let failures = |payload: &[u8]| {
        let document: Value = serde_json::from_slice(payload).unwrap();
        let failures = document["failures"].as_array().unwrap().iter();
        failures
            .map(|failure| {
                let text = |key: &str| failure[key].as_str().unwrap().to_owned();
                (text("failedAction"), text("errorMessage"))
            })
            .collect::<Vec<_>>()
    };
    let [at_once] = Message::new("in/x", payload).run(&pipeline).try_into().unwrap();
    assert_eq!(at_once.topic, "errors/r");
    let names: Vec<String> = failures(&at_once.payload).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["bad", "worse"]);

    for _ in 0..3 {
        bodies.recv().await.unwrap();
    }
    let mut later = Vec::new();
    for _ in 0..2 {
        let message = published.recv().await.unwrap();
        let document: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(document["base64OriginalPayload"], STANDARD.encode(payload));
        assert!(!message.payload.windows(6).any(|window| window == b"s3cret"), "no query in the document");
        later.extend(failures(&message.payload));
    }
    later.sort();
    let expected = |name: &str, attempts: &str| {
        (name.to_owned(), format!("the far side answered 503: \"\" ({attempts})"))
    };
    assert_eq!(later, [expected("ops", "attempt 2 of 2"), expected("second", "attempt 1 of 1")]);
    let stats = stats(&pipeline, "r");
    assert_eq!((stats.error_actions, stats.error_actions_failed), (3, 0));
    assert_eq!(stats.actions[0].delivery.as_ref().unwrap().dropped_for(DropReason::RetriesExhausted), 1);
    drop(pipeline);
    assert!(published.recv().await.is_none(), "once each");
}

#[tokio::test]
async fn a_shutdown_runs_the_error_actions_that_it_sets_off() {
    let (failing, _bodies) = server("503 Busy").await;
    let (errors, mut documents) = server("200 OK").await;
    let text = http_rule(failing, "")
        .replace("max_backoff = \"2ms\", max_attempts = 2", "max_attempts = 1000")
        .replace(
            "type = \"republish\"\n        topic = \"errors/r\"",
            &format!("type = \"http\"\n        url = \"http://{errors}/\""),
        );
    let pipeline = pipeline(&text);
    Message::new("in/x", b"{\"v\":1}").run(&pipeline);
    pipeline.shutdown(Duration::from_millis(100)).await;
    let document: Value = serde_json::from_str(&documents.recv().await.unwrap()).unwrap();
    assert_eq!(document["failures"][0]["failedAction"], "ops");
    let stats = stats(&pipeline, "r");
    assert_eq!(stats.actions[0].delivery.as_ref().unwrap().dropped_for(DropReason::Shutdown), 1);
    assert_eq!(stats.actions[1].delivery.as_ref().unwrap().delivered, 1);
}

#[tokio::test]
async fn an_action_cannot_reach_the_admin_interface() {
    let (address, mut bodies) = server("200 OK").await;
    let targets = TargetPolicy { admin: vec![address], ..settings().targets };
    let settings = PipelineSettings { targets, ..PipelineSettings::default() };
    let pipeline = RulePipeline::new(&rules(&http_rule(address, "")), &settings).unwrap();
    let (sender, mut published) = mpsc::channel(10);
    pipeline.attach(Arc::new(Published(sender)));
    Message::new("in/x", b"{}").run(&pipeline);
    let message = published.recv().await.unwrap();
    let document: Value = serde_json::from_slice(&message.payload).unwrap();
    let text = document["failures"][0]["errorMessage"].as_str().unwrap();
    assert!(text.contains("admin interface"), "{text}");
    assert!(bodies.try_recv().is_err());
}

#[tokio::test]
async fn a_changed_setting_keeps_what_is_queued() {
    let (closed, _socket) = unused_address();
    let pipeline = pipeline(&http_rule(closed, ""));
    for n in 0..5 {
        Message::new("in/x", format!("{{\"v\":{n}}}").as_bytes()).run(&pipeline);
    }
    let (address, mut bodies) = server("200 OK").await;
    // A request keeps the URL that it was rendered with; what changes is how it is sent.
    pipeline.replace(&rules(&http_rule(closed, "timeout = \"1s\""))).unwrap();
    let kept = stats(&pipeline, "r").actions[0].delivery.clone().unwrap();
    assert_eq!((kept.received, kept.delivered + kept.dropped_total()), (5, 0));
    pipeline.replace(&rules(&http_rule(address, ""))).unwrap();
    Message::new("in/y", b"{\"v\":9}").run(&pipeline);
    let stats = stats(&pipeline, "r");
    let delivery = stats.actions[0].delivery.as_ref().unwrap();
    assert_eq!((stats.actions[0].requests, delivery.received), (6, 6), "counters go on");
    assert!(
        bodies.try_recv().is_err(),
        "order holds: the new one waits behind the old ones of its publisher"
    );
}

#[tokio::test]
async fn a_refused_message_leaves_no_trace_in_queues_and_their_counters() {
    // The first action is queued, the second fails at once; the error action is published, or queued itself.
    let (address, mut bodies) = server("200 OK").await;
    let second = "[[rules.r.actions]]\nname = 'bad'\ntype = 'republish'\ntopic = 'out/${v}'\n";
    let with_queue = http_rule(address, second);
    let error_queued = format!(
        "[rules.r]\nsql = \"SELECT v FROM 'in/#'\"\n{second}[rules.r.error_action]\ntype = 'http'\nurl = 'http://{address}/error'\n"
    );
    for text in [with_queue, error_queued] {
        let pipeline = pipeline(&text);
        let (sender, mut published) = mpsc::channel(10);
        pipeline.attach(Arc::new(Published(sender)));
        let message = Message::new("in/x", b"{\"v\":\"+\"}");
        let effects = message.effects(&pipeline);
        assert!(!effects.admitted.is_empty());
        drop(effects);
        let refused = stats(&pipeline, "r");
        assert_eq!((refused.passed, refused.error_actions, refused.error_actions_failed), (1, 0, 0));
        let queued = |stats: &RuleStats| {
            stats.actions.iter().filter(|action| action.kind == "http").cloned().collect::<Vec<_>>()
        };
        for action in queued(&refused) {
            let received = action.delivery.as_ref().map_or(0, |delivery| delivery.received);
            assert_eq!((action.requests, received), (0, 0), "{}", action.name);
        }

        message.run(&pipeline);
        pipeline.shutdown(Duration::from_secs(30)).await;
        let admitted = stats(&pipeline, "r");
        assert_eq!((admitted.passed, admitted.error_actions, admitted.error_actions_failed), (2, 1, 0));
        let sent: Vec<(u64, u64)> = queued(&admitted)
            .iter()
            .map(|action| (action.requests, action.delivery.as_ref().unwrap().delivered))
            .collect();
        assert_eq!(sent, [(1, 1)]);
        assert!(bodies.recv().await.is_some());
        assert!(bodies.try_recv().is_err(), "what was refused is not among what was sent");
        assert!(published.try_recv().is_err());
    }
}
