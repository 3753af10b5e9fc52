//! Kill -9 at random moments, with unsynced writes lost: nothing acknowledged is.

use integration_tests::chaos::{Event, Options, run};

#[test]
fn without_kills_nothing_is_lost_doubled_or_out_of_order() {
    match run(&Options {
        seed: 1,
        rounds: 20,
        with_kills: false,
        durability: "commit".to_owned(),
        with_sink: true,
    }) {
        Ok(summary) => {
            assert!(summary.acknowledged == 2400 && summary.delivered > 7200, "{summary:?}");
            assert_eq!(summary.accounts, 6, "every fourth round and in the end");
        }
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn a_broker_that_keeps_nothing_is_found_out() {
    let options =
        Options { seed: 1, rounds: 3, with_kills: true, durability: "memory".to_owned(), with_sink: false };
    let failure = run(&options).expect_err("what is kept in memory is gone");
    let text = failure.to_string();
    assert!(text.starts_with("seed 1: ") && text.contains("SessionLost"), "{text}");
    let is_lost = |what: &str| what.contains("was acknowledged and never reached");
    assert!(failure.violations.iter().any(|violation| is_lost(&violation.what)), "{text}");
    assert!(failure.history.iter().any(|entry| entry.event == Event::Killed));
}

#[test]
fn nothing_acknowledged_is_lost_where_the_power_is_cut_again_and_again() {
    match run(&Options {
        seed: 42,
        rounds: 24,
        with_kills: true,
        durability: "commit".to_owned(),
        with_sink: false,
    }) {
        Ok(summary) => assert!(summary.kills > 24 && summary.acknowledged == 2880, "{summary}"),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn what_an_action_is_owed_adds_up_where_the_power_is_cut_and_the_far_side_is_unwell() {
    match run(&Options {
        seed: 43,
        rounds: 12,
        with_kills: true,
        durability: "commit".to_owned(),
        with_sink: true,
    }) {
        Ok(summary) => assert!(summary.kills > 12 && summary.accounts == 5, "{summary}"),
        Err(failure) => panic!("{failure}"),
    }
}
