//! Rules inside a real broker.

use super::*;

#[tokio::test]
async fn rules_that_feed_each_other_stop() {
    let rule = |name: &str, from: &str, to: &str| {
        format!(
            "[rules.{name}]\nsql = \"SELECT * FROM '{from}'\"\n[[rules.{name}.actions]]\nname = 'a'\ntype = 'republish'\ntopic = '{to}'\n"
        )
    };
    let text =
        [rule("own", "own/#", "own/x"), rule("ping", "ping", "pong"), rule("pong", "pong", "ping")].concat();
    let pipeline = pipeline(&text);
    let broker = broker(&pipeline).await;
    broker.publish(publish("own/x", "{}")).await.unwrap();
    broker.publish(publish("ping", "{}")).await.unwrap();
    let counts = |rule: &str| {
        let stats = stats(&pipeline, rule);
        (stats.passed, stats.looped)
    };
    assert_eq!(counts("own"), (1, 1));
    assert_eq!(counts("ping"), (1, 1));
    assert_eq!(counts("pong"), (1, 0));
}

#[tokio::test]
async fn a_rule_on_its_own_error_topic_stops() {
    // Fails for every message, with the error action within the admission, and after the fact.
    for queued in [false, true] {
        let (address, _bodies) = server("400 Bad Request").await;
        let action = if queued {
            format!("type = 'http'\nurl = 'http://{address}/'")
        } else {
            "type = 'republish'\ntopic = 'out/${nothing}+'".to_owned()
        };
        let pipeline = pipeline(&format!(
            "[rules.r]\nsql = \"SELECT * FROM '#'\"\n[[rules.r.actions]]\nname = 'a'\n{action}\n[rules.r.error_action]\ntype = 'republish'\ntopic = 'errors/r'\n"
        ));
        let broker = broker(&pipeline).await;
        broker.publish(publish("in", "{}")).await.unwrap();
        let came_round = || {
            let stats = stats(&pipeline, "r");
            stats.looped > 0 || stats.passed > 1
        };
        while !came_round() {
            tokio::task::yield_now().await;
        }
        let stats = stats(&pipeline, "r");
        assert_eq!((stats.passed, stats.looped, stats.error_actions), (1, 1, 1), "queued: {queued}");
    }
}

#[tokio::test]
async fn a_ring_through_error_actions_ends_where_it_would_come_round() {
    let (address, _bodies) = server("400 Bad Request").await;
    let fails = |name: &str, from: &str, errors_to: &str| {
        format!(
            "[rules.{name}]\nsql = \"SELECT * FROM '{from}'\"\n[[rules.{name}.actions]]\nname = 'a'\ntype = 'http'\nurl = 'http://{address}/'\n[rules.{name}.error_action]\ntype = 'republish'\ntopic = '{errors_to}'\n"
        )
    };
    let republishes = |name: &str, from: &str, to: &str| {
        format!(
            "[rules.{name}]\nsql = \"SELECT * FROM '{from}'\"\n[[rules.{name}.actions]]\nname = 'a'\ntype = 'republish'\ntopic = '{to}'\n"
        )
    };
    for second in [republishes("second", "b", "a"), fails("second", "b", "a")] {
        let pipeline = pipeline(&[fails("first", "a", "b"), second].concat());
        let broker = broker(&pipeline).await;
        broker.publish(publish("a", "{}")).await.unwrap();
        let came_round = || {
            let stats = stats(&pipeline, "first");
            stats.looped > 0 || stats.passed > 1
        };
        while !came_round() {
            tokio::task::yield_now().await;
        }
        // Nothing is on its way any more: whatever the rules still held has run when this returns.
        pipeline.shutdown(Duration::from_secs(30)).await;
        let (first, second) = (stats(&pipeline, "first"), stats(&pipeline, "second"));
        assert_eq!((first.passed, first.looped, first.error_actions), (1, 1, 1));
        assert_eq!((second.passed, second.looped), (1, 0));
        assert_eq!((first.actions[1].requests, first.actions[1].refused), (1, 0));
        assert_eq!((first.error_actions_failed, second.error_actions_failed), (0, 0));
    }
}

#[tokio::test]
async fn an_error_action_after_the_fact_counts_among_the_hops() {
    let (address, _bodies) = server("400 Bad Request").await;
    let pipeline = pipeline(&http_rule(address, ""));
    let (sender, mut published) = mpsc::channel(10);
    pipeline.attach(Arc::new(Published(sender)));
    let mut message = Message::new("in/x", b"{}");
    message.trail = (100..107).fold(Trail::default(), |trail, rule| trail.with(rule));
    message.run(&pipeline);
    let document = published.recv().await.unwrap();
    assert_eq!(document.trail.rules().len(), 8);
    assert_eq!(document.trail.rules().get(..7), Some(message.trail.rules()), "the way that led to it");

    message.trail = message.trail.with(107);
    message.run(&pipeline);
    pipeline.shutdown(Duration::from_secs(30)).await;
    assert!(published.try_recv().is_err(), "eight rules are the limit");
    let stats = stats(&pipeline, "r");
    assert_eq!((stats.error_actions, stats.error_actions_failed), (2, 1));
    assert_eq!((stats.actions[1].requests, stats.actions[1].hop_limited), (1, 1));
}

#[tokio::test]
async fn a_publish_that_the_broker_refuses_sends_no_request() {
    // Where a rule's message is to be retained, all take their way through admission in turns, otherwise in one go.
    let copy = "[[rules.r.actions]]\nname = 'copy'\ntype = 'republish'\ntopic = 'copy'\n";
    for more in ["", copy, &format!("{copy}retain = true\n")] {
        let (address, mut bodies) = server("200 OK").await;
        let pipeline = pipeline(&http_rule(address, more));
        let limits = broker::Limits { max_retained_messages: 1, ..broker::Limits::default() };
        let broker = broker_with(&pipeline, BrokerConfig { limits, ..BrokerConfig::default() }).await;
        let retained =
            |topic: &str, payload: &str| InternalPublish { retain: true, ..publish(topic, payload) };
        broker.publish(retained("in/first", "{\"v\":1}")).await.unwrap();
        let refused = broker.publish(retained("in/second", "{\"v\":2}")).await;
        assert!(matches!(refused, Err(broker::PublishError::Refused(_))), "{refused:?}");
        broker.publish(publish("in/second", "{\"v\":3}")).await.unwrap();
        pipeline.shutdown(Duration::from_secs(30)).await;
        assert_eq!(bodies.recv().await.unwrap(), "{\"v\":1}");
        assert_eq!(bodies.recv().await.unwrap(), "{\"v\":3}");
        assert!(bodies.try_recv().is_err());
        let stats = stats(&pipeline, "r");
        let delivery = stats.actions[0].delivery.as_ref().unwrap();
        assert_eq!((stats.passed, stats.actions[0].requests, delivery.received), (3, 2, 2));
        assert_eq!(stats.error_actions, 0);
    }
}

#[test]
fn the_document_is_what_the_manual_says() {
    let failures = [error_action::FailedAction {
        failed_action: "ops".to_owned(),
        failed_resource: "https://ops.example".to_owned(),
        error_message: "no".to_owned(),
    }];
    assert_eq!(
        serde_json::to_value(&failures).unwrap(),
        json!([{ "failedAction": "ops", "failedResource": "https://ops.example", "errorMessage": "no" }])
    );
}

#[tokio::test]
async fn undefined_in_an_action_is_blank_omitted_or_a_failure() {
    let rule = "[rules.r]\nsql = \"SELECT * FROM 'in'\"\n[[rules.r.actions]]\nname = 'a'\ntype = 'republish'\n\
                topic = 'out'\npayload = '{\"t\": ${t}, \"x\": ${x}}'\n";
    for (keys, expected) in [
        ("", Some(r#"{"t": 1, "x": null}"#)),
        ("undefined = 'null'", Some(r#"{"t": 1, "x": null}"#)),
        ("undefined = 'omit'", Some(r#"{"t":1}"#)),
        ("strict = false", Some(r#"{"t": 1, "x": null}"#)),
        ("strict = true", None),
    ] {
        let pipeline = pipeline(&format!("{rule}{keys}"));
        let made = Message::new("in", br#"{"t": 1}"#).run(&pipeline);
        let payloads: Vec<&[u8]> = made.iter().map(|republish| &*republish.payload).collect();
        assert_eq!(payloads, expected.iter().map(|text| text.as_bytes()).collect::<Vec<_>>(), "{keys}");
        let failed = stats(&pipeline, "r").actions[0].failed_render;
        assert_eq!(failed, u64::from(expected.is_none()), "{keys}");
    }
}

#[tokio::test]
async fn an_empty_output_fires_unless_the_rule_says_otherwise() {
    let rule = |sql: &str, keys: &str| {
        format!(
            "[rules.r]\nsql = \"{sql}\"\n{keys}\n[[rules.r.actions]]\nname = 'a'\ntype = 'republish'\ntopic = 'out'\n"
        )
    };
    for (sql, keys, payload, fires) in [
        ("SELECT x FROM 'in'", "", "{}", 1),
        ("SELECT x FROM 'in'", "skip_empty = false", "{}", 1),
        ("SELECT x FROM 'in'", "skip_empty = true", "{}", 0),
        ("SELECT x FROM 'in'", "skip_empty = true", r#"{"x":null}"#, 1),
        ("SELECT * FROM 'in'", "skip_empty = true", " { } ", 0),
        ("SELECT * FROM 'in'", "skip_empty = true", "{}x", 1),
        ("SELECT VALUE [] FROM 'in'", "skip_empty = true", "{}", 1),
    ] {
        let pipeline = pipeline(&rule(sql, keys));
        assert_eq!(
            Message::new("in", payload.as_bytes()).run(&pipeline).len(),
            fires,
            "{sql} {keys} {payload}"
        );
        let stats = stats(&pipeline, "r");
        assert_eq!((stats.matched, stats.passed, stats.no_output), (1, fires as u64, 1 - fires as u64));
    }
}
