//! Rules that change through the interface.

use serde_json::{Value, json};

use super::running::{Running, start, start_with};
use super::security::{ask, bearer, with_tokens};
use super::*;

const NONE: Value = Value::Null;

fn rule(threshold: u32) -> Value {
    json!({
        "sql": format!("SELECT t FROM 'w/+' WHERE t > {threshold}"),
        "actions": [{ "name": "a", "type": "republish", "topic": "warm", "headers": null }],
    })
}

fn plain(threshold: u32) -> Value {
    let mut rule = rule(threshold);
    rule["actions"][0].as_object_mut().unwrap().remove("headers");
    rule
}

impl Running {
    async fn put(&self, name: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let operator = bearer("operator");
        let headers = [&[("Authorization", operator.as_str())], headers].concat();
        ask(&self.api, "PUT", &format!("/api/v1/rules/{name}"), &headers, &body.to_string()).await
    }

    async fn passed(&self, rule: &str) -> Option<u64> {
        let publish = json!({ "topic": "w/1", "payload": "{\"t\":50}" });
        assert_eq!(self.change("POST", "/api/v1/publish", publish).await.status, 204);
        self.gateway.rules().stats_of(rule).map(|stats| stats.passed)
    }
}

#[tokio::test]
async fn a_rule_is_made_changed_removed_and_brought_back() {
    let running = start().await;
    let made = running.put("warm", &[("If-None-Match", "*")], &plain(60)).await;
    assert_eq!(made.status, 200, "{made:?}");
    assert!(made.head.contains("etag: \"1\""), "{made:?}");
    let delta = &made.json()["rules"][0];
    assert_eq!(
        (&delta["name"], &delta["change"], &delta["version"]),
        (&json!("warm"), &json!("added"), &json!(1))
    );
    assert_eq!(running.passed("warm").await, Some(0));

    let changed = running.put("warm", &[("If-Match", "\"1\"")], &plain(40)).await;
    assert_eq!(changed.json()["rules"][0]["members"][0]["member"], "sql");
    assert_eq!(running.passed("warm").await, Some(1), "it runs as it is now");
    let same = running.put("warm", &[], &plain(40)).await.json();
    assert_eq!(same["rules"], json!([]), "what is so already makes no version");

    let shown = running.get("/api/v1/rules/warm").await;
    let summary = &shown["summary"];
    assert_eq!(
        (&summary["owner"], &summary["version"], &summary["runs"]),
        (&json!("store"), &json!(2), &json!(true))
    );
    assert_eq!(summary["author"], "token operator");
    assert_eq!(shown["definition"]["sql"], plain(40)["sql"]);

    let removed = running.change("DELETE", "/api/v1/rules/warm", NONE).await;
    assert_eq!(removed.json()["rules"][0]["change"], "removed");
    assert_eq!(running.passed("warm").await, None);
    let versions = running.ask("operator", "GET", "/api/v1/rules/warm/versions", &NONE).await.json();
    let numbers: Vec<_> =
        versions["versions"].as_array().unwrap().iter().map(|version| &version["number"]).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(versions["versions"][2]["definition"], NONE);
    let back = running.change("POST", "/api/v1/rules/warm/roll-back", json!({ "version": 2 })).await;
    assert_eq!(back.json()["rules"][0]["version"], 4);
    assert!(running.passed("warm").await.is_some_and(|passed| passed >= 1));
    let none = running.change("POST", "/api/v1/rules/warm/roll-back", json!({ "version": 9 })).await;
    assert_eq!(none.problem(), (404, "missing".to_owned()));
}

#[tokio::test]
async fn of_two_who_change_one_rule_the_second_is_told() {
    let running = start().await;
    assert_eq!(running.put("warm", &[], &plain(1)).await.status, 200);
    assert_eq!(running.put("warm", &[("If-Match", "\"1\"")], &plain(2)).await.status, 200);
    let late = running.put("warm", &[("If-Match", "\"1\"")], &plain(3)).await;
    assert_eq!(late.problem(), (412, "precondition".to_owned()));
    let taken = running.put("warm", &[("If-None-Match", "*")], &plain(3)).await;
    assert_eq!(taken.problem(), (412, "precondition".to_owned()));
    let missing = running.put("cool", &[("If-Match", "\"1\"")], &plain(3)).await;
    assert_eq!(missing.problem(), (404, "missing".to_owned()));
    for headers in
        [("If-Match", "1"), ("If-Match", "*"), ("If-Match", "\"1\", \"2\""), ("If-None-Match", "\"1\"")]
    {
        assert_eq!(running.put("warm", &[headers], &plain(3)).await.problem().0, 422, "{headers:?}");
    }
    let remove = async |tag: &str| {
        let operator = bearer("operator");
        let headers = [("Authorization", operator.as_str()), ("If-Match", tag)];
        ask(&running.api, "DELETE", "/api/v1/rules/warm", &headers, "").await
    };
    assert_eq!(remove("\"1\"").await.problem().0, 412);
    assert_eq!(remove("\"2\"").await.status, 200);
}

#[tokio::test]
async fn what_would_not_run_is_refused_and_everything_stays() {
    let running = start().await;
    assert_eq!(running.put("warm", &[], &plain(1)).await.status, 200);
    for (name, body) in [
        ("warm", json!({})),
        ("warm", json!({ "sql": "SELEC" })),
        ("warm", rule(1)),
        (
            "warm",
            json!({ "sql": "SELECT * FROM 'a'", "actions": [{ "name": "a", "type": "republish", "topic": "${env:HOME}" }] }),
        ),
        (
            "warm",
            json!({ "sql": "SELECT * FROM 'a'", "actions": [{ "name": "a", "type": "http", "connector": "none" }] }),
        ),
        ("a%20b", plain(1)),
        ("a%2Fb", plain(1)),
        ("%22%5D%0A%5Brules.x", plain(1)),
    ] {
        let refused = running.put(name, &[], &body).await;
        assert!([409, 422].contains(&refused.problem().0), "{name}: {refused:?}");
    }
    let shown = running.get("/api/v1/rules/warm").await;
    assert_eq!(shown["summary"]["version"], 1);
    assert_eq!(running.get("/api/v1/rules").await["rules"].as_array().unwrap().len(), 3);
    let viewer = running.ask("viewer", "PUT", "/api/v1/rules/x", &plain(1)).await;
    assert_eq!(viewer.problem(), (403, "forbidden".to_owned()));
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let running = start().await;
    let put = running.change("PUT", "/api/v1/rules/warm?dry_run=true", plain(1)).await;
    assert_eq!(put.json()["rules"][0]["change"], "added");
    assert_eq!(running.ask("viewer", "GET", "/api/v1/rules/warm", &NONE).await.status, 404);
    let body = json!({ "rules": { "one": plain(1), "two": plain(2) } });
    let applied = running.change("POST", "/api/v1/rules/apply?dry_run=true", body.clone()).await;
    assert_eq!(applied.json()["rules"].as_array().unwrap().len(), 2);
    assert_eq!(running.get("/api/v1/rules").await["rules"].as_array().unwrap().len(), 2);

    assert_eq!(running.change("POST", "/api/v1/rules/apply", body.clone()).await.status, 200);
    let same = running.change("POST", "/api/v1/rules/apply", body).await.json();
    assert_eq!(same["rules"], json!([]));
    let pruned = json!({ "rules": { "two": plain(2) }, "prune": true });
    let dry = running.change("POST", "/api/v1/rules/apply?dry_run=true", pruned.clone()).await.json();
    let done = running.change("POST", "/api/v1/rules/apply", pruned).await.json();
    assert_eq!(dry, done);
    assert_eq!((&done["rules"][0]["name"], &done["rules"][0]["change"]), (&json!("one"), &json!("removed")));
    let one_wrong = json!({ "rules": { "three": plain(3), "four": {} } });
    assert_eq!(running.change("POST", "/api/v1/rules/apply", one_wrong).await.problem().0, 422);
    assert_eq!(running.ask("viewer", "GET", "/api/v1/rules/three", &NONE).await.status, 404, "all or none");

    let exported = running.ask("operator", "GET", "/api/v1/export/rules", &NONE).await;
    assert!(exported.head.contains("content-type: application/toml"), "{exported:?}");
    let limits = rules_sql::Limits::default();
    let rules = RuleSet::from_texts([(Path::new("x.toml"), exported.body.as_str())], &limits).unwrap();
    assert_eq!(rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["two"]);
}

#[tokio::test]
async fn a_rule_of_a_file_is_suspended_and_resumed_and_nothing_else() {
    let running = start().await;
    let refused = running.put("hot", &[], &plain(1)).await;
    assert_eq!(refused.problem(), (409, "conflict".to_owned()));
    assert!(refused.body.contains("r.toml"), "both places are named: {refused:?}");
    for (method, path) in [("DELETE", "hot"), ("POST", "hot/disable"), ("POST", "hot/enable")] {
        let refused = running.change(method, &format!("/api/v1/rules/{path}"), NONE).await;
        assert_eq!(refused.problem(), (409, "conflict".to_owned()), "{path}");
    }
    let suspended = running.change("POST", "/api/v1/rules/hot/suspend", NONE).await.json();
    assert_eq!(suspended["rules"][0]["change"], "suspended");
    let shown = running.get("/api/v1/rules/hot").await;
    assert_eq!((&shown["summary"]["runs"], &shown["summary"]["enabled"]), (&json!(false), &json!(true)));
    assert_eq!(shown["summary"]["suspended"]["by"], "token operator");
    assert_eq!(shown["counters"], NONE);
    assert_eq!(
        running.change("POST", "/api/v1/rules/hot/resume", NONE).await.json()["rules"][0]["change"],
        "resumed"
    );
    assert_eq!(running.get("/api/v1/rules/hot").await["summary"]["runs"], true);

    assert_eq!(running.put("warm", &[], &plain(1)).await.status, 200);
    assert_eq!(running.change("POST", "/api/v1/rules/warm/suspend", NONE).await.problem().0, 409);
    assert_eq!(running.change("POST", "/api/v1/rules/warm/disable", NONE).await.status, 200);
    assert_eq!(running.get("/api/v1/rules/warm").await["summary"]["runs"], false);
    assert_eq!(running.change("POST", "/api/v1/rules/warm/enable", NONE).await.status, 200);
    assert_eq!(running.change("POST", "/api/v1/rules/none/enable", NONE).await.problem().0, 404);
}

#[tokio::test]
async fn secrets_in_a_definition_are_not_for_viewers_nor_for_the_record() {
    let running = start_with(with_tokens(), Storage::memory()).await;
    let body = json!({
        "sql": "SELECT * FROM 's'",
        "actions": [{ "name": "h", "type": "http", "url": "https://x.example", "headers": { "Authorization": "canary" } }],
    });
    let put = running.put("sent", &[], &body).await;
    assert_eq!(put.status, 200, "{put:?}");
    let viewer = running.ask("viewer", "GET", "/api/v1/rules/sent", &NONE).await;
    assert!(!viewer.body.contains("canary") && viewer.body.contains("x.example"), "{viewer:?}");
    assert!(running.ask("operator", "GET", "/api/v1/rules/sent", &NONE).await.body.contains("canary"));
    let versions = running.ask("viewer", "GET", "/api/v1/rules/sent/versions", &NONE).await;
    assert_eq!(versions.problem().0, 403);
    let audit = running.ask("admin", "GET", "/api/v1/audit", &NONE).await;
    assert!(!audit.body.contains("canary") && audit.body.contains("putRule"), "{audit:?}");
}

#[tokio::test]
async fn each_version_says_what_it_changed() {
    let running = start().await;
    for threshold in [1, 2] {
        assert_eq!(running.put("warm", &[], &plain(threshold)).await.status, 200);
    }
    assert_eq!(running.change("DELETE", "/api/v1/rules/warm", NONE).await.status, 200);
    let versions = running.ask("operator", "GET", "/api/v1/rules/warm/versions", &NONE).await.json();
    let members = |version: usize| {
        let members = versions["versions"][version]["members"].as_array().unwrap();
        members.iter().map(|member| member["member"].as_str().unwrap()).collect::<Vec<_>>()
    };
    let all = ["actions.a.name", "actions.a.topic", "actions.a.type", "sql"];
    assert_eq!((members(0), members(1), members(2)), (all.to_vec(), vec!["sql"], all.to_vec()));
    let change = &versions["versions"][1]["members"][0];
    assert_eq!((&change["before"], &change["after"]), (&plain(1)["sql"], &plain(2)["sql"]));

    // Of the first one that is kept nobody knows what was before.
    for threshold in 0..u32::try_from(crate::rules::VERSIONS_MAX).unwrap() {
        assert_eq!(running.put("warm", &[], &plain(threshold)).await.status, 200);
    }
    let versions = running.ask("operator", "GET", "/api/v1/rules/warm/versions", &NONE).await.json();
    assert!(versions["versions"][0]["number"].as_u64().unwrap() > 1, "{versions}");
    assert_eq!(versions["versions"][0]["members"], NONE);
    assert!(versions["versions"][1]["members"].is_array());
}

#[tokio::test]
async fn every_fault_of_rules_is_named() {
    let running = start().await;
    let rules = |count: usize| -> Value {
        let rules = (0..count).map(|number| (format!("r{number:03}"), json!({ "sql": "SELEC" })));
        json!({ "rules": rules.collect::<serde_json::Map<_, _>>() })
    };
    for (count, named) in [(1, 1), (5, 5), (ERRORS_MAX, ERRORS_MAX), (ERRORS_MAX + 1, ERRORS_MAX + 1)] {
        let refused = running.change("POST", "/api/v1/rules/apply", rules(count)).await;
        assert_eq!(refused.problem(), (422, "invalid".to_owned()));
        let errors = refused.json()["errors"].as_array().unwrap().clone();
        assert_eq!((errors.len(), &errors[0]["rule"]), (named, &json!("r000")));
        let last = errors[named - 1]["message"].as_str().unwrap();
        assert_eq!(last == "1 more are not named", count > ERRORS_MAX, "{last}");
    }
}

#[tokio::test]
async fn many_rules_fit_a_body_and_no_more() {
    let running = start().await;
    let body = |bytes: usize| {
        let (begin, end) = (r#"{"rules":{},"x":""#, r#""}"#);
        format!("{begin}{}{end}", "x".repeat(bytes - begin.len() - end.len()))
    };
    let operator = bearer("operator");
    let apply = async |body: &str| {
        ask(&running.api, "POST", "/api/v1/rules/apply", &[("Authorization", &operator)], body).await
    };
    let longest = apply(&body(RULES_BODY_BYTES_MAX)).await;
    assert_eq!(longest.problem(), (422, "invalid".to_owned()), "it is read, and its member isn't known");
    assert_eq!(apply(&body(RULES_BODY_BYTES_MAX + 1)).await.problem(), (413, "too_large".to_owned()));
    let put = running.put("warm", &[], &json!({ "sql": "x".repeat(BODY_BYTES_MAX) })).await;
    assert_eq!(put.problem(), (413, "too_large".to_owned()), "one rule has the length of every body");
}

#[tokio::test]
async fn a_page_of_rules_with_details_ends_where_they_grow_long() {
    let (count, actions) = (200, 60);
    let mut text = String::new();
    for rule in 0..count {
        text.push_str(&format!("[rules.r{rule:03}]\nsql = \"SELECT a.b = 1 AS x FROM 'a' WHERE x = 1\"\n"));
        for action in 0..actions {
            text.push_str(&format!(
                "[[rules.r{rule:03}.actions]]\nname = 'a{action}'\ntype = 'republish'\ntopic = 'b'\n"
            ));
        }
    }
    let limits = rules_sql::Limits::default();
    let rules = RuleSet::from_texts([(Path::new("r.toml"), text.as_str())], &limits).unwrap();
    let running = Running::of(&rules, Storage::memory()).await;
    let short = running.get("/api/v1/rules?limit=1000").await;
    assert_eq!((short["rules"].as_array().unwrap().len(), &short["next"]), (count, &NONE));
    assert_eq!(short["rules"][0].get("details"), None);

    let (mut seen, mut pages, mut after) = (Vec::new(), 0, String::new());
    loop {
        let page = running.get(&format!("/api/v1/rules?limit=1000&details=true{after}")).await;
        pages += 1;
        for rule in page["rules"].as_array().unwrap() {
            let details = &rule["details"];
            assert_eq!(details["warnings"].as_array().unwrap().len() as u64, rule["warnings"]);
            assert_eq!(
                (&details["counters"]["name"], details["counters"]["actions"].as_array().unwrap().len()),
                (&rule["name"], actions)
            );
            seen.push(rule["name"].as_str().unwrap().to_owned());
        }
        let details = page["rules"].as_array().unwrap().iter().map(|rule| rule["details"].to_string().len());
        let longest = details.clone().max().unwrap();
        assert!(details.sum::<usize>() < RULES_PAGE_BYTES_MAX + 2 * longest, "{}", page["next"]);
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert!(pages > 1);
    assert_eq!(seen, (0..count).map(|rule| format!("r{rule:03}")).collect::<Vec<_>>());
    let shown = running.get("/api/v1/rules/r000").await;
    assert!(!shown["warnings"].as_array().unwrap().is_empty());
    running.stop().await;
}
