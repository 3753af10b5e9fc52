//! A record that is sent again is written once: what goes out under which number and sequence.

use std::time::Duration;

use super::super::producer::{Identity, LINES_MAX, Line, Producer, RECORDS_MAX};
use super::fake::{FIRST_PRODUCER, Sent};
use super::*;

const TEXT: &str = "topic = 't'\npartition = 1";

/// The numbered items of one publisher, whose values are their numbers.
fn numbered(numbers: &[u64]) -> Vec<Arc<Envelope<Record>>> {
    let text = format!("{TEXT}\nvalue = '${{x}}'");
    let envelope = |n: &u64| {
        let request = record(&text, &[("value", n.to_string().as_bytes())]);
        Arc::new(Envelope::new(ItemId { store: 1, epoch: 2, sequence: *n }, request, None))
    };
    numbers.iter().map(envelope).collect()
}

/// What was sent: how many producers there were before this one, first sequence, values.
fn sent(fake: &Fake) -> Vec<(i64, i32, String)> {
    let shown = |sent: &Sent| (sent.producer.0 - FIRST_PRODUCER, sent.first, sent.values.join(" "));
    fake.seen.batches.lock().iter().map(shown).collect()
}

fn shown(expected: &[(i64, i32, &str)]) -> Vec<(i64, i32, String)> {
    expected.iter().map(|(producer, first, values)| (*producer, *first, (*values).to_owned())).collect()
}

#[tokio::test]
async fn sequences_count_the_records_of_each_partition() {
    let fake = Fake::start(Like::default()).await;
    let text = "topic = 't'\nkey = '${x}'";
    let sink = sink(text, &fake.connectors(""));
    let keys = ["21", "foobar", "abc", "21", "21", "foobar"];
    for _ in 0..2 {
        let all = batch(keys.iter().map(|key| record(text, &[("key", key.as_bytes())])).collect());
        assert_eq!(whats(&sink.deliver(&all).await), ["ok"; 6]);
    }
    let mut next: BTreeMap<i32, i32> = BTreeMap::new();
    for sent in fake.seen.batches.lock().iter() {
        assert_eq!(sent.producer, (FIRST_PRODUCER, 3));
        let next = next.entry(sent.partition).or_default();
        assert_eq!(sent.first, *next);
        *next += i32::try_from(sent.values.len()).unwrap();
    }
    assert_eq!(next.values().sum::<i32>(), 12);
    assert_eq!(*fake.seen.producers.lock(), 1);
}

#[tokio::test]
async fn without_idempotence_nothing_is_numbered() {
    let fake = Fake::start(Like { knows_producers: false, ..Like::default() }).await;
    let text = format!("{TEXT}\nidempotence = false");
    assert_eq!(sink(&text, &fake.connectors("")).deliver(&numbered(&[1])).await, [Ok(())]);
    let sent = fake.seen.batches.lock()[0].clone();
    assert_eq!((sent.producer, sent.first), ((-1, -1), -1));
}

#[tokio::test]
async fn what_was_not_answered_comes_again_as_it_was() {
    // The answers to the first two requests are lost, or say that nobody knows.
    for says in [
        [Say::Close, Say::Close],
        [Say::Codes(vec![7]), Say::Codes(vec![20])],
        [Say::Codes(vec![-1]), Say::Codes(vec![56])],
        [Say::Codes(vec![6]), Say::Close],
        [Say::Body(0_i64.to_be_bytes().to_vec()), Say::Body(vec![0xff; 64])],
    ] {
        let told = format!("{says:?}");
        let fake = Fake::start(Like::says(says)).await;
        let sink = sink(TEXT, &fake.connectors(""));
        assert_eq!(whats(&sink.deliver(&numbered(&[1, 2])).await), ["again"; 2], "{told}");
        // Others come with one of them: those of before go first and together, and the rest waits for them.
        assert_eq!(whats(&sink.deliver(&numbered(&[1, 3])).await), ["again", "behind"], "{told}");
        assert_eq!(sink.deliver(&numbered(&[1, 3])).await, [Ok(()), Ok(())], "{told}");
        // Written with the first, so it isn't sent once more.
        assert_eq!(sink.deliver(&numbered(&[2, 4])).await, [Ok(()), Ok(())], "{told}");
        let expected = [(0, 0, "1 2"), (0, 0, "1 2"), (0, 0, "1 2"), (0, 2, "3"), (0, 3, "4")];
        assert_eq!(sent(&fake), shown(&expected), "{told}");
    }
}

#[tokio::test]
async fn what_was_given_up_comes_again_as_it_was() {
    let fake = Fake::start(Like::says([Say::Hang])).await;
    let sink = Arc::new(sink(TEXT, &fake.connectors("")));
    let first = Arc::clone(&sink);
    let delivery = tokio::spawn(async move { first.deliver(&numbered(&[1, 2])).await });
    fake.seen.was_asked.notified().await;
    delivery.abort();
    assert!(delivery.await.unwrap_err().is_cancelled());
    // What others send waits for it.
    assert_eq!(sink.deliver(&numbered(&[3])).await, [Ok(())]);
    assert_eq!(sink.deliver(&numbered(&[2, 1])).await, [Ok(()), Ok(())]);
    assert_eq!(sent(&fake), shown(&[(0, 0, "1 2"), (0, 0, "1 2"), (0, 2, "3")]));
}

#[tokio::test]
async fn one_batch_of_a_partition_is_under_way_at_a_time() {
    let fake = Fake::start(Like::says([Say::Hang])).await;
    let sink = Arc::new(sink(TEXT, &fake.connectors("")));
    let deliver = |numbers: &'static [u64]| {
        let sink = Arc::clone(&sink);
        tokio::spawn(async move { sink.deliver(&numbered(numbers)).await })
    };
    let first = deliver(&[1]);
    fake.seen.was_asked.notified().await;
    let second = deliver(&[2]);
    // Another action isn't kept from the partition.
    let other = self::sink(TEXT, &fake.connectors(""));
    assert_eq!(other.deliver(&numbered(&[9])).await, [Ok(())]);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(second.await.unwrap(), [Ok(())]);
    assert_eq!(sink.deliver(&numbered(&[1])).await, [Ok(())]);
    assert_eq!(sent(&fake), shown(&[(0, 0, "1"), (1, 0, "9"), (0, 0, "1"), (0, 1, "2")]));
}

#[tokio::test]
async fn refused_records_leave_no_gap() {
    let refused = || Say::Codes(vec![87]);
    let taken = || Say::Codes(vec![0]);
    let says = [refused(), taken(), refused(), refused(), taken()];
    let fake = Fake::start(Like::says(says)).await;
    let results = sink(TEXT, &fake.connectors("")).deliver(&numbered(&[0, 1, 2, 3, 4])).await;
    assert_eq!(whats(&results), ["ok", "ok", "refused", "ok", "ok"]);
    let expected = [(0, 0, "0 1 2 3 4"), (0, 0, "0 1"), (0, 2, "2 3 4"), (0, 2, "2"), (0, 2, "3 4")];
    assert_eq!(sent(&fake), shown(&expected));
}

#[tokio::test]
async fn a_refusal_ends_a_doubt() {
    let fake = Fake::start(Like::says([Say::Close, Say::Codes(vec![10])])).await;
    let sink = sink(TEXT, &fake.connectors(""));
    assert_eq!(whats(&sink.deliver(&numbered(&[1])).await), ["again"]);
    assert_eq!(whats(&sink.deliver(&numbered(&[2])).await), ["ok"]);
    assert_eq!(whats(&sink.deliver(&numbered(&[1])).await), ["ok"]);
    assert_eq!(sent(&fake), shown(&[(0, 0, "1"), (0, 0, "1"), (0, 0, "2"), (0, 1, "1")]));
}

#[tokio::test]
async fn what_a_broker_has_already_is_written() {
    let fake = Fake::start(Like::says([Say::Close, Say::Codes(vec![46])])).await;
    let sink = sink(TEXT, &fake.connectors(""));
    assert_eq!(whats(&sink.deliver(&numbered(&[1, 2])).await), ["again"; 2]);
    assert_eq!(sink.deliver(&numbered(&[1, 2, 3])).await, [Ok(()), Ok(()), Ok(())]);
    assert_eq!(sent(&fake), shown(&[(0, 0, "1 2"), (0, 0, "1 2"), (0, 2, "3")]));
}

#[tokio::test]
async fn a_producer_that_a_broker_does_not_know_begins_anew_once() {
    for code in [45, 47, 49, 59, 90] {
        let says = [Say::Codes(vec![0]), Say::Codes(vec![code]), Say::Codes(vec![0])];
        let fake = Fake::start(Like::says(says)).await;
        let sink = sink(TEXT, &fake.connectors(""));
        assert_eq!(sink.deliver(&numbered(&[1])).await, [Ok(())]);
        assert_eq!(sink.deliver(&numbered(&[2, 3])).await, [Ok(()), Ok(())], "{code}");
        assert_eq!(sent(&fake), shown(&[(0, 0, "1"), (0, 1, "2 3"), (1, 0, "2 3")]), "{code}");

        fake.like.lock().says = vec![Say::Codes(vec![code]); 2].into();
        let results = sink.deliver(&numbered(&[4, 5])).await;
        assert_eq!(whats(&results), ["again"; 2], "{code}");
        let error = results[0].as_ref().unwrap_err();
        assert!(error.is_attempt() && error.to_string().contains("the broker answered"), "{error}");
        assert_eq!(sink.deliver(&numbered(&[4, 5])).await, [Ok(()), Ok(())], "{code}");
        let expected = [(1, 2, "4 5"), (2, 0, "4 5"), (3, 0, "4 5")];
        assert_eq!(sent(&fake)[3..], shown(&expected), "{code}");
    }
}

#[tokio::test]
async fn a_cluster_that_gives_no_number_says_how_to_do_without() {
    let refuses = |code| Like { numbers: [code].into(), ..Like::default() };
    let knows_none = Like { knows_producers: false, ..Like::default() };
    for (like, cause) in [
        (refuses(31), "CLUSTER_AUTHORIZATION_FAILED"),
        (refuses(35), "UNSUPPORTED_VERSION"),
        (knows_none, "the broker speaks no version of InitProducerId"),
        (Like::says([Say::Codes(vec![31])]), "CLUSTER_AUTHORIZATION_FAILED"),
        (Like::says([Say::Codes(vec![43])]), "UNSUPPORTED_FOR_MESSAGE_FORMAT"),
    ] {
        let fake = Fake::start(like).await;
        let results = sink(TEXT, &fake.connectors("")).deliver(&numbered(&[1])).await;
        assert_eq!(whats(&results), ["disabled"], "{cause}");
        let told = results[0].as_ref().unwrap_err().to_string();
        assert!(told.contains(cause) && told.contains("idempotence = false turns that off"), "{told}");
    }
    // Without it, that is said of no refusal.
    let fake = Fake::start(Like::says([Say::Codes(vec![31])])).await;
    let text = format!("{TEXT}\nidempotence = false");
    let results = sink(&text, &fake.connectors("")).deliver(&numbered(&[1])).await;
    assert_eq!(whats(&results), ["disabled"]);
    assert!(!results[0].as_ref().unwrap_err().to_string().contains("idempotence"));
}

#[tokio::test]
async fn a_number_that_is_not_given_at_the_moment_is_asked_for_again() {
    let fake = Fake::start(Like { numbers: [14, 15, -1].into(), ..Like::default() }).await;
    let sink = sink(TEXT, &fake.connectors(""));
    for _ in 0..3 {
        let results = sink.deliver(&numbered(&[1])).await;
        let error = results[0].as_ref().unwrap_err();
        assert!(error.is_retriable() && !error.is_attempt(), "{error}");
    }
    assert_eq!(sink.deliver(&numbered(&[1])).await, [Ok(())]);
    assert_eq!(sent(&fake), shown(&[(3, 0, "1")]));
}

#[tokio::test]
async fn a_record_in_doubt_stays_with_its_partition() {
    let text = "topic = 't'\norder_by = 'none'";
    for _ in 0..8 {
        let fake = Fake::start(Like::says([Say::Close, Say::Close])).await;
        let sink = sink(text, &fake.connectors(""));
        let once = batch(vec![record(text, &[])]);
        while sink.deliver(&once).await != [Ok(())] {}
        let batches = fake.seen.batches.lock().clone();
        assert_eq!(batches.len(), 3);
        assert!(batches.iter().all(|sent| *sent == batches[0]), "{batches:?}");
    }
}

#[tokio::test]
async fn what_was_written_behind_a_failure_is_not_written_again() {
    // Two partitions in one request: the first one fails, and both are sent again, since one publisher sent both.
    let fake = Fake::start(Like::says([Say::Codes(vec![7, 0])])).await;
    let text = "topic = 't'\nkey = '${x}'";
    let key_of =
        |partition| (0..).map(|n: u32| n.to_string()).find(|key| of_key(key.as_bytes(), 3) == partition);
    let keys: Vec<String> = [0, 1].into_iter().filter_map(key_of).collect();
    let all = batch(keys.iter().map(|key| record(text, &[("key", key.as_bytes())])).collect());
    let sink = sink(text, &fake.connectors(""));
    assert_eq!(whats(&sink.deliver(&all).await), ["again", "ok"]);
    assert_eq!(whats(&sink.deliver(&all).await), ["ok", "ok"]);
    let partitions: Vec<i32> = fake.seen.batches.lock().iter().map(|sent| sent.partition).collect();
    assert_eq!(partitions, [0, 1, 0]);
}

#[test]
fn behind_the_largest_sequence_comes_zero() {
    let identity = Identity { id: 1, epoch: 0 };
    let mut line = Line { identity: Some(identity), next: i32::MAX, doubt: Vec::new() };
    assert_eq!(line.sequence(false, identity).first, i32::MAX);
    line.advance(1);
    assert_eq!(line.sequence(false, identity).first, 0);
    line.next = i32::MAX - 1;
    line.advance(5);
    assert_eq!(line.next, 3);
}

#[tokio::test]
async fn no_more_partitions_are_remembered_than_the_limit() {
    let producer = Producer::default();
    let deadline = || tokio::time::Instant::now() + Duration::from_secs(30);
    for partition in 0..LINES_MAX {
        let partition = i32::try_from(partition).unwrap();
        producer.line("t", partition, deadline()).await.unwrap().next = 7;
    }
    assert_eq!(producer.line("t", 0, deadline()).await.unwrap().next, 7);
    let held = producer.line("t", 1, deadline()).await.unwrap();
    assert_eq!(producer.line("u", 0, deadline()).await.unwrap().next, 0);
    assert_eq!(producer.line("t", 0, deadline()).await.unwrap().next, 0);
    assert_eq!(held.next, 7);
}

#[test]
fn no_more_records_are_remembered_than_the_limit() {
    let producer = Producer::default();
    let id = |sequence| ItemId { store: 1, epoch: 2, sequence };
    let last = u64::try_from(RECORDS_MAX).unwrap() - 1;
    producer.keep_written((0..=last).map(|n| (id(n), 0)));
    assert_eq!((producer.partition_of(id(0)), producer.partition_of(id(last))), (Some(0), Some(0)));
    producer.keep_written([(id(last + 1), 1)].into_iter());
    assert_eq!((producer.partition_of(id(0)), producer.partition_of(id(last + 1))), (None, Some(1)));
    producer.doubt(&numbered(&[1]), 2);
    assert_eq!(producer.partition_of(id(1)), Some(2));
}
