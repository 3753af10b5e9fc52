//! Connections that break, servers that are silent, and servers that mean harm.

use super::*;

#[tokio::test]
async fn a_broken_or_silent_connection_is_made_anew() {
    for text in ["subject = 's'", CORE] {
        let server = Server::start(&[Act::Close, Act::Hang]).await;
        let connectors = server.connectors("");
        // What ends by an event has all the time that it needs.
        let (patient, hasty) =
            (sink(text, &connectors), sink(&format!("{text}\ntimeout = '500ms'"), &connectors));
        let once = some(text, 1);
        let results = patient.deliver(&once).await;
        assert!(matches!(results[..], [Err(DeliveryError::Interrupted { .. })]), "{text}");
        assert!(matches!(hasty.deliver(&once).await[..], [Err(DeliveryError::TimedOut { .. })]), "{text}");
        assert_eq!(patient.deliver(&once).await, [Ok(())], "{text}");
        assert_eq!(server.signed_in(), 3);
        // Nothing of what failed was sent behind our backs.
        assert_eq!(server.sent().len(), 3);
    }
}

/// What was answered before a break is done, what wasn't is sent again.
#[tokio::test]
async fn a_break_in_the_middle_of_a_batch_fails_what_was_not_answered() {
    let text = "subject = 's'";
    let server = Server::start(&[STORED, STORED, Act::Close]).await;
    let results = server.deliver(text, &some(text, 4)).await;
    assert_eq!(fates(&results), ["ok", "ok", "again", "again"]);
    // A server that only has them has told nothing yet.
    let server = Server::start(&[Act::Nothing, Act::Close]).await;
    assert_eq!(fates(&server.deliver(CORE, &some(CORE, 3)).await), ["again"; 3]);
}

/// A stream that doesn't answer is no reason to part with a server that does.
#[tokio::test]
async fn a_silent_stream_costs_no_connection() {
    let text = "subject = 's'";
    let server = Server::start(&[STORED, Act::Nothing]).await;
    let connectors = server.connectors("");
    let (patient, hasty) = (sink(text, &connectors), sink(&format!("{text}\ntimeout = '2s'"), &connectors));
    let results = hasty.deliver(&some(text, 2)).await;
    assert!(matches!(results[..], [Ok(()), Err(DeliveryError::TimedOut { .. })]), "{results:?}");
    assert_eq!(patient.deliver(&some(text, 1)).await, [Ok(())]);
    assert_eq!(server.signed_in(), 1);
}

#[tokio::test]
async fn a_connection_that_broke_while_idle_fails_nothing() {
    let server = Server::start(&[]).await;
    let sink = sink(CORE, &server.connectors(""));
    assert_eq!(sink.deliver(&some(CORE, 1)).await, [Ok(())]);
    let (connection, _) = sink.connector().connection().await.unwrap();
    connection.close(&"by the test");
    server.shared.closed.notified().await;
    assert_eq!(sink.deliver(&some(CORE, 1)).await, [Ok(())]);
    assert_eq!(server.signed_in(), 2);
}

#[tokio::test]
async fn what_the_server_said_last_is_told() {
    let server = Server::start(&[Act::Say("-ERR 'Stale Connection'\r\n"), Act::Close]).await;
    let text = "subject = 's'";
    let results = server.deliver(text, &some(text, 2)).await;
    let cause = results[0].as_ref().unwrap_err().to_string();
    assert!(cause.contains("the last that it said was \"Stale Connection\""), "{cause}");
}

/// What a server says against it knows which message isn't taken for consent to any of them.
#[tokio::test]
async fn an_error_without_a_message_is_no_consent() {
    let server = Server::start(&[Act::Nothing, Act::Say("-ERR 'Something New'\r\n")]).await;
    let results = server.deliver(CORE, &some(CORE, 3)).await;
    assert_eq!(fates(&results), ["again"; 3]);
    let cause = results[0].as_ref().unwrap_err().to_string();
    assert!(cause.contains("Something New"), "{cause}");
}

/// One error for each message is looked into; what comes past that is said against all of them.
#[tokio::test]
async fn more_errors_than_messages_are_about_none_of_them() {
    let error = "-ERR 'Permissions Violation for Publish to \"other\"'\r\n";
    let ours = "-ERR 'Permissions Violation for Publish to \"s\"'\r\n";
    for (others, expected) in [(1, "disabled"), (2, "again")] {
        let said: &'static str = format!("{}{ours}", error.repeat(others)).leak();
        let server = Server::start(&[Act::Nothing, Act::Say(said)]).await;
        assert_eq!(fates(&server.deliver(CORE, &some(CORE, 2)).await), [expected; 2], "{others}");
    }
}

#[tokio::test]
async fn the_server_is_told_that_somebody_is_there() {
    let server = Server::start(&[Act::Say("PING\r\n")]).await;
    let connectors = server.connectors("");
    assert_eq!(sink(CORE, &connectors).deliver(&some(CORE, 1)).await, [Ok(())]);
    server.shared.pongs.notified().await;
}

#[tokio::test]
async fn a_connection_ends_with_its_connector() {
    let server = Server::start(&[]).await;
    let connectors = server.connectors("");
    let sink = sink(CORE, &connectors);
    assert_eq!(sink.deliver(&some(CORE, 1)).await, [Ok(())]);
    drop((sink, connectors));
    server.shared.closed.notified().await;
}

#[tokio::test]
async fn actions_share_a_connection() {
    let server = Server::start(&[]).await;
    let connectors = server.connectors("");
    let (one, other) = (sink(CORE, &connectors), sink("subject = 't'", &connectors));
    let (a, b) = (some(CORE, 300), some("subject = 't'", 300));
    let (of_one, of_other) = tokio::join!(one.deliver(&a), other.deliver(&b));
    assert!(of_one.iter().chain(&of_other).all(Result::is_ok));
    assert_eq!((server.signed_in(), server.sent().len()), (1, 600));
}

/// None of it harms anything but the connection, and the next one does well.
#[tokio::test]
async fn what_is_not_nats_ends_the_connection() {
    static ENDLESS: [u8; 1 << 20] = [b'x'; 1 << 20];
    let endless = std::str::from_utf8(&ENDLESS).unwrap();
    for harm in [
        endless,
        "MSG a 1 18446744073709551615\r\n",
        "MSG a 1 2147483647\r\n",
        "HMSG a 1 9 8\r\n",
        "MSG\r\n",
        "INFO {\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "\0\0\0\0\r\n",
        "\r\n",
    ] {
        let what: String = harm.chars().take(40).collect();
        let text = "subject = 's'";
        let server = Server::start(&[Act::Say(harm)]).await;
        let sink = sink(text, &server.connectors(""));
        let [Err(error)] = &sink.deliver(&some(text, 1)).await[..] else { panic!("{what}") };
        assert!(matches!(error, DeliveryError::Interrupted { .. }), "{what}: {error}");
        assert!(error.to_string().len() < 1000, "{error}");
        assert_eq!(sink.deliver(&some(text, 1)).await, [Ok(())], "{what}");

        let greeting = Greeting { info: harm.to_owned(), ..Greeting::default() };
        let server = Server::greet(greeting, &[]).await;
        let [Err(error)] = &server.deliver(text, &some(text, 1)).await[..] else { panic!("{what}") };
        assert!(matches!(error, DeliveryError::Unreachable { .. }), "{what}: {error}");
    }
}

/// Answers that belong to nothing, twice, or to another's inbox change nothing.
#[tokio::test]
async fn answers_that_nobody_awaits_change_nothing() {
    // Each waits for the answer that isn't one until its time is over: all of them together.
    let mut harms = tokio::task::JoinSet::new();
    for harm in [
        "-ERR\r\n",
        "-ERR '\r\n",
        "+OK\r\nPONG\r\n",
        "MSG a 1 0\r\n\r\n",
        "MSG _INBOX.x.0-0 1 24\r\n{\"stream\":\"S\",\"seq\":123}\r\n",
        "INFO {\"headers\":true,\"max_payload\":-1}\r\n",
    ] {
        harms.spawn(async move {
            let text = "subject = 's'";
            let server = Server::start(&[Act::Say(harm), STORED]).await;
            let connectors = server.connectors("");
            let (patient, hasty) =
                (sink(text, &connectors), sink(&format!("{text}\ntimeout = '2s'"), &connectors));
            assert_eq!(fates(&hasty.deliver(&some(text, 2)).await), ["again", "ok"], "{harm}");
            assert_eq!(patient.deliver(&some(text, 2)).await, [Ok(()), Ok(())], "{harm}");
        });
    }
    harms.join_all().await;
}

/// What another action has left in an outbox, or somebody has changed there, can't become a command.
#[tokio::test]
async fn what_is_kept_is_checked_again() {
    let text = "subject = 's'\nheaders = { H = '${x}' }";
    let good = record(text, &[("headers.H", b"v")]);
    let mut bad = vec![good.clone(); 6];
    bad[0].address[0] = "a b".to_owned();
    bad[1].address[0] = "s 1\r\nPUB other".to_owned();
    bad[2].address[0] = String::new();
    bad[3].fields[0].1 = "v\r\nPUB other".into();
    bad[4].fields[0].1 = vec![0xff].into();
    bad[5].kind = crate::record::RecordKind::Redis;
    bad.push(good);
    let server = Server::start(&[]).await;
    let results = server.deliver(text, &batch(bad)).await;
    assert_eq!(fates(&results), [["refused"; 6].as_slice(), &["ok"]].concat());
    assert_eq!(server.sent().len(), 1);
}
