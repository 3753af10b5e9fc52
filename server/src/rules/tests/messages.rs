//! One message at a time: evaluation, loops, counters, and a change of the rules in between.

use super::*;

#[tokio::test]
async fn republishes_what_matches_and_counts_what_does_not() {
    let pipeline = pipeline(OVERHEAT);
    assert!(pipeline.candidates("sensors/north/humidity").is_none());
    assert!(pipeline.candidates("$SYS/broker/uptime").is_none());

    let hot = Message::new("sensors/north/temp", br#"{"deviceId":"d1","temperature":61.50}"#);
    let [republish] = hot.run(&pipeline).try_into().unwrap();
    assert_eq!(
        (republish.topic.as_str(), republish.qos, republish.retain),
        ("alarms/north", QoS::AtLeastOnce, false)
    );
    assert_eq!(republish.payload, br#"{"deviceId":"d1","t":61.50,"site":"north"}"#);
    assert_eq!(republish.properties, b"");

    assert!(Message::new("sensors/north/temp", br#"{"temperature":10}"#).run(&pipeline).is_empty());
    assert!(Message::new("sensors/north/temp", b"not json").run(&pipeline).is_empty());
    let stats = stats(&pipeline, "overheat");
    assert_eq!((stats.matched, stats.passed, stats.no_match), (3, 1, 2));
    assert_eq!((stats.actions[0].name.as_str(), stats.actions[0].requests), ("alarm", 1));
}

#[tokio::test]
async fn templates_see_the_message_and_its_publisher() {
    let pipeline = pipeline(
        r#"
        [rules.r]
        sql = "SELECT v FROM 'in/#'"
        [[rules.r.actions]]
        name = "a"
        type = "republish"
        topic = "out/${clientid()}"
        payload = "${v}|${username()}|${topic()}"
        content_type = "text/plain"
        response_topic = "answers/${clientid()}"
        correlation_data = "AAEC"
        user_properties = { site = "${topic(2)}" }
        message_expiry_interval = 60
        "#,
    );
    let [republish] = Message::new("in/north", br#"{"v":"x"}"#).run(&pipeline).try_into().unwrap();
    assert_eq!(republish.topic, "out/dev-1");
    assert_eq!(republish.payload, b"x|user|in/north");
    assert_eq!(republish.message_expiry_interval_s, Some(60));
    let properties = PublishProperties::from_encoded(&republish.properties).unwrap();
    assert_eq!(properties.content_type, Some("text/plain"));
    assert_eq!(properties.response_topic, Some("answers/dev-1"));
    assert_eq!(properties.correlation_data, Some(&[0, 1, 2][..]));
    assert_eq!(properties.user_properties.iter().collect::<Vec<_>>(), [("site", "north")]);
}

#[tokio::test]
async fn a_rule_leaves_alone_what_it_had_a_part_in_making() {
    let pipeline = pipeline(OVERHEAT);
    let hot = br#"{"temperature":99}"#;
    let [republish] = Message::new("sensors/n/temp", hot).run(&pipeline).try_into().unwrap();
    let mut again = Message::new("sensors/n/temp", hot);
    again.trail = Trail::default().with(1_000).with(republish.rule).with(1_001);
    assert!(again.run(&pipeline).is_empty());
    let stats = stats(&pipeline, "overheat");
    assert_eq!((stats.matched, stats.passed, stats.looped), (2, 1, 1));
}

#[tokio::test]
async fn a_message_goes_through_eight_rules_at_most() {
    let pipeline = pipeline(OVERHEAT);
    let mut message = Message::new("sensors/n/temp", br#"{"temperature":99}"#);
    message.trail = (100..107).fold(Trail::default(), |trail, rule| trail.with(rule));
    assert_eq!(message.run(&pipeline).len(), 1, "seven before this one");
    message.trail = message.trail.with(107);
    assert!(message.run(&pipeline).is_empty(), "neither action nor error action");
    let stats = stats(&pipeline, "overheat");
    assert_eq!((stats.actions[0].hop_limited, stats.actions[1].hop_limited), (1, 1));
    assert_eq!((stats.error_actions, stats.error_actions_failed), (1, 1));
}

#[tokio::test]
async fn output_in_an_error_action_is_its_document_and_variables_keep_their_values() {
    let pipeline = pipeline(
        r#"
        [rules.r]
        sql = "SET @id = newuuid() SELECT @id AS id FROM 'in'"
        [[rules.r.actions]]
        name = "fine"
        type = "republish"
        topic = "fine"
        [[rules.r.actions]]
        name = "bad"
        type = "republish"
        topic = "${missing}"
        [rules.r.error_action]
        type = "republish"
        topic = "errors/${output().ruleName}/${get(output().failures, 0).failedAction}"
        payload = "${@id}"
        "#,
    );
    let [fine, error] = Message::new("in", b"{}").run(&pipeline).try_into().unwrap();
    assert_eq!(error.topic, "errors/r/bad");
    let id: Value = serde_json::from_slice(&error.payload).unwrap();
    assert_eq!(id, document(&fine)["id"]);
}

#[tokio::test]
async fn a_failed_action_sets_the_error_action_off_once() {
    let pipeline = pipeline(
        r#"
        [rules.r]
        sql = "SELECT * FROM 'in/#'"
        [[rules.r.actions]]
        name = "one"
        type = "republish"
        topic = "out/${x}"
        [[rules.r.actions]]
        name = "two"
        type = "republish"
        topic = "fine"
        [[rules.r.actions]]
        name = "three"
        type = "republish"
        topic = "out/${x}"
        [rules.r.error_action]
        type = "republish"
        topic = "errors/${topic(2)}"
        "#,
    );
    let payload = br#"{"x":"a/+"}"#;
    let [fine, error] = Message::new("in/n", payload).run(&pipeline).try_into().unwrap();
    assert_eq!((fine.topic.as_str(), error.topic.as_str()), ("fine", "errors/n"));
    assert_eq!(fine.rule, error.rule);
    let document = document(&error);
    assert_eq!(document["ruleName"], "r");
    assert_eq!(document["topic"], "in/n");
    assert_eq!(document["clientId"], "dev-1");
    assert_eq!(document["traceId"].as_str().unwrap().len(), 32);
    assert_eq!(document["base64OriginalPayload"], STANDARD.encode(payload));
    let failures = document["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 2);
    assert_eq!(failures[0]["failedAction"], "one");
    assert_eq!(failures[0]["failedResource"], "out/${x}");
    assert!(failures[0]["errorMessage"].as_str().unwrap().contains("topic"), "{}", failures[0]);
    assert_eq!(failures[1]["failedAction"], "three");
    assert_eq!(document.as_object().unwrap().len(), 6);

    let stats = stats(&pipeline, "r");
    assert_eq!((stats.passed, stats.error_actions, stats.error_actions_failed), (1, 1, 0));
    assert_eq!(stats.actions.iter().map(|action| action.failed_render).collect::<Vec<_>>(), [1, 0, 1, 0]);
}

#[tokio::test]
async fn a_failed_error_action_is_counted_and_no_more() {
    let text = OVERHEAT
        .replace("topic = \"errors/overheat\"", "topic = \"errors/${x}\"")
        .replace("alarms/${topic(2)}", "alarms/${x}");
    let pipeline = pipeline(&text);
    let message = Message::new("sensors/n/temp", br##"{"temperature":99,"x":"#"}"##);
    assert!(message.run(&pipeline).is_empty());
    let stats = stats(&pipeline, "overheat");
    assert_eq!((stats.error_actions, stats.error_actions_failed), (1, 1));
    assert_eq!(stats.actions[1].failed_render, 1);
}

#[tokio::test]
async fn many_rules_yield_and_go_on_where_they_were() {
    let text: String = (0..3_000)
        .map(|n| {
            format!(
                "[rules.r{n}]\nsql = \"SELECT v FROM 'in' WHERE v >= 0\"\n[[rules.r{n}.actions]]\nname = 'a'\ntype = 'republish'\ntopic = 'out/{n}'\n"
            )
        })
        .collect();
    let pipeline = pipeline(&text);
    let message = Message::new("in", br#"{"v":1}"#);
    let handler = pipeline.candidates("in").unwrap();
    let mut effects = HookEffects::default();
    let (mut cursor, mut turns) = (0, 1);
    while handler.handle(&message.publication(), &mut cursor, &mut effects) == Progress::Yield {
        turns += 1;
    }
    assert!(turns > 1, "3,000 rules don't fit 50 µs");
    let topics: Vec<&str> = effects.republish.iter().map(|republish| republish.topic.as_str()).collect();
    let stats = pipeline.stats();
    let expected: Vec<String> = stats.iter().map(|rule| rule.name.replace('r', "out/")).collect();
    assert_eq!(topics, expected, "each rule once, in the order of the rules");
    assert!(stats.iter().all(|rule| (rule.matched, rule.passed, rule.no_match) == (1, 1, 0)));
}

/// A rule that republishes to `out/<name>`.
fn plain(name: &str, sql: &str) -> String {
    format!(
        "[rules.{name}]\nsql = \"{sql}\"\n[[rules.{name}.actions]]\nname = 'a'\ntype = 'republish'\ntopic = 'out/{name}'\n"
    )
}

/// The names of the rules that republish a message, in order.
fn ran(pipeline: &RulePipeline, message: &Message<'_>) -> Vec<String> {
    message.run(pipeline).iter().map(|republish| republish.topic.replace("out/", "")).collect()
}

/// Matched, passed, no match and looped of a rule.
fn counted(pipeline: &RulePipeline, rule: &str) -> (u64, u64, u64, u64) {
    let stats = stats(pipeline, rule);
    let parts = [stats.passed, stats.no_match, stats.no_output, stats.failed_evaluation, stats.looped];
    assert_eq!(stats.matched, parts.iter().sum::<u64>(), "{stats:?}");
    (stats.matched, stats.passed, stats.no_match, stats.looped)
}

#[tokio::test]
async fn rules_on_different_filters_run_in_the_order_of_all_and_each_once() {
    let filters = ["'in/+'", "'in/1'", "'in/+', 'in/1'", "'#'", "'in/1', 'in/+', '#'", "'other'"];
    let text: String = (0..60)
        .map(|n| {
            let condition = ["v = 1", "v = 2", "v >= 1", "v IN (1, 3)", "NOT v = 2"][n % 5];
            plain(&format!("r{n:02}"), &format!("SELECT v FROM {} WHERE {condition}", filters[n % 6]))
        })
        .collect();
    let pipeline = pipeline(&text);
    for (payload, holding) in [(&br#"{"v":1}"#[..], &[0, 2, 3, 4][..]), (br#"{"v":2}"#, &[1, 2]), (b"-", &[])]
    {
        let expected: Vec<String> = (0..60)
            .filter(|n| n % 6 != 5 && holding.contains(&(n % 5)))
            .map(|n| format!("r{n:02}"))
            .collect();
        assert_eq!(ran(&pipeline, &Message::new("in/1", payload)), expected);
    }
    for n in 0..60_usize {
        let passed = [[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]][n % 5].iter().sum();
        let expected = if n % 6 == 5 { (0, 0, 0, 0) } else { (3, passed, 3 - passed, 0) };
        assert_eq!(counted(&pipeline, &format!("r{n:02}")), expected, "r{n:02}");
    }
}

#[tokio::test]
async fn a_rule_that_the_index_leaves_out_is_counted_with_its_group() {
    let text: String =
        (0..200).map(|n| plain(&format!("r{n}"), &format!("SELECT v FROM 'in' WHERE v = {n}"))).collect();
    let pipeline = pipeline(&text);
    let [republish] = Message::new("in", br#"{"v":7}"#).run(&pipeline).try_into().unwrap();
    assert_eq!(republish.topic, "out/r7");
    assert!(ran(&pipeline, &Message::new("in", br#"{"v":200}"#)).is_empty());
    let mut again = Message::new("in", br#"{"v":7}"#);
    again.trail = Trail::default().with(republish.rule);
    assert!(ran(&pipeline, &again).is_empty());
    again.payload = br#"{"v":8}"#;
    assert_eq!(ran(&pipeline, &again), ["r8"], "a rule that wouldn't match isn't held back");
    assert_eq!(counted(&pipeline, "r7"), (4, 1, 2, 1));
    assert_eq!(counted(&pipeline, "r8"), (4, 1, 3, 0));
    assert_eq!(counted(&pipeline, "r199"), (4, 0, 4, 0));
}

#[tokio::test]
async fn counters_go_on_through_changes_of_the_rules() {
    let rule = |name: &str, from: &str| plain(name, &format!("SELECT v FROM {from} WHERE v = 1"));
    let replace =
        |pipeline: &RulePipeline, text: &[String]| pipeline.replace(&rules(&text.concat())).unwrap();
    let pipeline = pipeline(&[rule("a", "'x'"), rule("b", "'x'")].concat());
    let yes = |topic| Message::new(topic, br#"{"v":1}"#);
    let no = |topic| Message::new(topic, br#"{"v":2}"#);
    ran(&pipeline, &yes("x"));
    ran(&pipeline, &no("x"));
    assert_eq!(counted(&pipeline, "a"), (2, 1, 1, 0));

    // One leaves the group, one joins it late; who stays goes on.
    replace(&pipeline, &[rule("a", "'y', 'x'"), rule("b", "'x'"), rule("c", "'x'")]);
    assert_eq!(counted(&pipeline, "a"), (2, 1, 1, 0));
    assert_eq!(counted(&pipeline, "c"), (0, 0, 0, 0));
    ran(&pipeline, &yes("x"));
    ran(&pipeline, &no("y"));
    assert_eq!(counted(&pipeline, "a"), (4, 2, 2, 0));
    assert_eq!(counted(&pipeline, "b"), (3, 2, 1, 0));
    assert_eq!(counted(&pipeline, "c"), (1, 1, 0, 0));

    // The same filters in another order are the same group, and a group that was gone begins anew.
    replace(&pipeline, &[rule("a", "'x', 'y'"), rule("c", "'x', 'y', 'x'")]);
    ran(&pipeline, &no("x"));
    assert_eq!(counted(&pipeline, "a"), (5, 2, 3, 0));
    assert_eq!(counted(&pipeline, "c"), (2, 1, 1, 0));
    replace(&pipeline, &[rule("b", "'x'")]);
    assert_eq!(counted(&pipeline, "b"), (3, 2, 1, 0), "nothing was counted while it was away");
    ran(&pipeline, &yes("x"));
    replace(&pipeline, &[rule("a", "'x', 'y'"), rule("b", "'x'")]);
    assert_eq!((counted(&pipeline, "a"), counted(&pipeline, "b")), ((5, 2, 3, 0), (4, 3, 1, 0)));
}

#[tokio::test]
async fn a_message_that_a_change_overtakes_leaves_no_negative_count() {
    let rule = |from: &str| plain("a", &format!("SELECT v FROM '{from}'"));
    let pipeline = pipeline(&rule("x"));
    let message = Message::new("x", br#"{"v":1}"#);
    let handler = pipeline.candidates("x").unwrap();
    pipeline.replace(&rules(&rule("y"))).unwrap();
    let mut effects = HookEffects::default();
    assert_eq!(handler.handle(&message.publication(), &mut 0, &mut effects), Progress::Done);
    assert_eq!(effects.republish.len(), 1);
    assert_eq!(counted(&pipeline, "a"), (1, 1, 0, 0));
}

#[tokio::test]
async fn each_budget_has_a_counter() {
    let text = [
        plain("steps", "SELECT VALUE a + a + a + a + a + a + a + a + a FROM 'in'"),
        plain("elements", "SELECT VALUE 5 IN a FROM 'in'"),
        plain("bytes", "SELECT VALUE concat(b, b, b) FROM 'in'"),
        plain("fine", "SELECT VALUE 1 FROM 'in'"),
    ]
    .concat();
    let limits = Limits { steps: 12, array_steps: 2, output_bytes: 40, ..Limits::default() };
    let set = RuleSet::from_texts([(Path::new("test.toml"), text.as_str())], &limits).unwrap();
    let pipeline = RulePipeline::new(&set, &PipelineSettings::default()).unwrap();
    let payload = br#"{"a":[1,2,3,4,5],"b":"0123456789012345"}"#;
    assert_eq!(ran(&pipeline, &Message::new("in", payload)), ["fine"]);
    let by_kind = |rule: &str| {
        let stats = stats(&pipeline, rule);
        (stats.failed_evaluation, stats.failed_steps, stats.failed_array_steps, stats.failed_output_bytes)
    };
    assert_eq!(by_kind("steps"), (1, 1, 0, 0));
    assert_eq!(by_kind("elements"), (1, 0, 1, 0));
    assert_eq!(by_kind("bytes"), (1, 0, 0, 1));
    assert_eq!(by_kind("fine"), (0, 0, 0, 0));
}

#[tokio::test]
async fn topics_with_the_same_rules_share_a_handler() {
    let pipeline = pipeline(OVERHEAT);
    let one = pipeline.candidates("sensors/a/temp").unwrap();
    let two = pipeline.candidates("sensors/b/temp").unwrap();
    assert!(Arc::ptr_eq(&one, &two));
}

#[tokio::test]
async fn other_rules_take_over_at_once_and_a_message_in_flight_ends_on_the_old() {
    let pipeline = pipeline(OVERHEAT);
    let before = pipeline.generation();
    let message = Message::new("sensors/n/temp", br#"{"temperature":61}"#);
    let old_handler = pipeline.candidates("sensors/n/temp").unwrap();
    let [old] = message.run(&pipeline).try_into().unwrap();
    pipeline.replace(&rules(&OVERHEAT.replace("alarms/", "alerts/"))).unwrap();
    assert_ne!(pipeline.generation(), before);
    let [new] = message.run(&pipeline).try_into().unwrap();
    assert_eq!((old.topic.as_str(), new.topic.as_str()), ("alarms/n", "alerts/n"));
    assert_eq!(old.rule, new.rule, "a rule keeps its number");
    let mut effects = HookEffects::default();
    assert_eq!(old_handler.handle(&message.publication(), &mut 0, &mut effects), Progress::Done);
    assert_eq!(effects.republish[0].topic, "alarms/n");
    assert_eq!(stats(&pipeline, "overheat").passed, 3, "and its counters");

    pipeline.replace(&rules(&OVERHEAT.replace("dialect", "enabled = false\ndialect"))).unwrap();
    assert!(pipeline.candidates("sensors/n/temp").is_none(), "a rule that isn't enabled doesn't run");
}
