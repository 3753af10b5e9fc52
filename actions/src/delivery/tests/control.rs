//! What an operator does to a queue in memory.

use super::*;

fn paused(world: &Arc<World>) -> Delivery<FakeSink> {
    Delivery::spawn_on("r/a", FakeSink::new(world), config(), 1, None, Start::Paused)
}

/// Lets the worker do what it can do without time going by.
async fn turns() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_queue_takes_and_sends_nothing_until_it_is_resumed() {
    let world = Arc::new(World::default());
    let delivery = paused(&world);
    for number in 0..3 {
        assert_eq!(delivery.enqueue(item(&world, 1, number)), Enqueued::Queued);
    }
    tokio::time::advance(Duration::from_secs(60)).await;
    turns().await;
    let snapshot = delivery.snapshot();
    assert!(snapshot.is_paused && snapshot.is_conserved());
    assert_eq!((snapshot.queued, snapshot.attempts, snapshot.next_attempt), (3, 0, None));
    // Neither is a way around the pause.
    delivery.send_now();
    turns().await;
    assert_eq!(delivery.snapshot().attempts, 0);
    delivery.resume();
    assert_eq!(settle(&delivery).await.delivered, 3);
    assert_eq!(*world.delivered.lock(), [(1, 0), (1, 1), (1, 2)]);

    delivery.pause();
    assert_eq!(delivery.enqueue(item(&world, 1, 3)), Enqueued::Queued);
    turns().await;
    assert_eq!(delivery.snapshot().queued, 1, "one that ran is paused as well");
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_at_a_pause_ends_as_it_ends() {
    let world = Arc::new(World::default());
    let (sink, gate) = FakeSink::gated(&world);
    script(&world, 2, [Err(answered(500))]);
    let delivery = Delivery::spawn("r/a", sink, config(), 1);
    for key in [1, 2] {
        assert_eq!(delivery.enqueue(item(&world, key, key)), Enqueued::Queued);
    }
    while world.at_once.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    delivery.pause();
    gate.add_permits(2);
    while delivery.snapshot().in_flight > 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(Duration::from_secs(600)).await;
    turns().await;
    let snapshot = delivery.snapshot();
    assert_eq!((snapshot.delivered, snapshot.queued, snapshot.attempts), (1, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn items_grow_too_old_while_a_queue_is_paused() {
    let world = Arc::new(World::default());
    let mut config = config();
    config.queue.max_age = Some(Duration::from_secs(60));
    let delivery = Delivery::spawn_on("r/a", FakeSink::new(&world), config, 1, None, Start::Paused);
    assert_eq!(delivery.enqueue(item(&world, 1, 0)), Enqueued::Queued);
    let snapshot = settle(&delivery).await;
    assert_eq!(snapshot.dropped_for(DropReason::Expired), 1);
    assert_eq!(world.failures.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_an_operator() {
    let world = Arc::new(World::default());
    let delivery = paused(&world);
    assert_eq!(delivery.enqueue(item(&world, 1, 0)), Enqueued::Queued);
    let began = Instant::now();
    delivery.shutdown(Duration::from_secs(3_600)).await;
    assert_eq!(Instant::now(), began);
    let end = delivery.snapshot();
    assert_eq!((end.dropped_for(DropReason::Shutdown), end.delivered), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_retired_queue_that_is_paused_ends_once_it_is_resumed() {
    let world = Arc::new(World::default());
    let delivery = paused(&world);
    assert_eq!(delivery.enqueue(item(&world, 1, 0)), Enqueued::Queued);
    delivery.retire();
    turns().await;
    assert!(!delivery.is_finished());
    delivery.resume();
    settle(&delivery).await;
    turns().await;
    assert!(delivery.is_finished());
}

#[tokio::test(start_paused = true)]
async fn to_send_now_ends_back_off_and_an_open_circuit() {
    let world = Arc::new(World::default());
    script(&world, 1, [Err(busy_for(3_600))]);
    let mut config = config();
    config.retry.max_backoff = Duration::from_secs(3_600);
    let delivery = Delivery::spawn("r/a", FakeSink::new(&world), config, 1);
    assert_eq!(delivery.enqueue(item(&world, 1, 0)), Enqueued::Queued);
    while delivery.snapshot().health.circuit != CircuitState::Open {
        tokio::task::yield_now().await;
    }
    assert_eq!(delivery.enqueue(item(&world, 2, 1)), Enqueued::Queued);
    let snapshot = delivery.snapshot();
    assert_eq!(snapshot.next_attempt, Some(Duration::from_secs(3_600)));
    assert_eq!(snapshot.last_error.map(|error| error.error), snapshot.health.cause);
    let began = Instant::now();
    delivery.send_now();
    while delivery.snapshot().delivered < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(Instant::now(), began);
    let snapshot = delivery.snapshot();
    assert_eq!((snapshot.health.circuit, snapshot.next_attempt), (CircuitState::Closed, None));
    assert_eq!(snapshot.last_delivered, Some(Duration::ZERO));
    assert!(snapshot.last_error.is_some(), "what went wrong last is still told");
}

#[tokio::test(start_paused = true)]
async fn to_send_now_ends_the_wait_for_company_of_what_waits_and_of_nothing_else() {
    let world = Arc::new(World::default());
    let linger = Duration::from_secs(60);
    let sink = FakeSink {
        policy: BatchPolicy { max_items: 10, max_bytes: 1_000, linger, is_whole: false },
        ..FakeSink::new(&world)
    };
    let delivery = Delivery::spawn("r/a", sink, config(), 1);
    let began = Instant::now();
    assert_eq!(delivery.enqueue(item(&world, 1, 0)), Enqueued::Queued);
    turns().await;
    assert_eq!(delivery.snapshot().attempts, 0);
    delivery.send_now();
    while delivery.snapshot().delivered < 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(Instant::now(), began);
    assert_eq!(delivery.enqueue(item(&world, 1, 1)), Enqueued::Queued);
    settle(&delivery).await;
    assert!(Instant::now().duration_since(began) >= linger);
}

#[tokio::test(start_paused = true)]
async fn a_purge_drops_what_waits_and_tells_nobody() {
    let world = Arc::new(World::default());
    let delivery = paused(&world);
    for number in 0..5 {
        assert_eq!(delivery.enqueue(item(&world, number % 2, number)), Enqueued::Queued);
    }
    assert_eq!(delivery.waiting(), 5);
    let purge = delivery.purge();
    assert_eq!(purge.items, 5);
    purge.done().await.unwrap();
    let snapshot = delivery.snapshot();
    assert!(snapshot.is_conserved());
    assert_eq!((snapshot.queued, snapshot.bytes, snapshot.dropped_for(DropReason::Purged)), (0, 0, 5));
    assert!(world.failures.lock().is_empty());
    // What comes now isn't meant.
    assert_eq!(delivery.enqueue(item(&world, 1, 5)), Enqueued::Queued);
    delivery.resume();
    assert_eq!(settle(&delivery).await.delivered, 1);
    assert_eq!(delivery.purge().items, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_at_a_purge_is_not_tried_again() {
    for whole in [false, true] {
        let world = Arc::new(World::default());
        let (sink, gate) = FakeSink::gated(&world);
        let policy = BatchPolicy { max_items: 2, max_bytes: 1_000, linger: Duration::ZERO, is_whole: whole };
        let mut config = config();
        config.concurrency = 1;
        let status = if whole { 400 } else { 500 };
        script(&world, 1, [Err(answered(status)), Err(answered(status))]);
        script(&world, 3, [Ok(())]);
        let delivery = Delivery::spawn("r/a", FakeSink { policy, ..sink }, config, 1);
        for number in 0..2 {
            assert_eq!(delivery.enqueue(item(&world, 1, number)), Enqueued::Queued);
        }
        while delivery.snapshot().in_flight < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(delivery.enqueue(item(&world, 2, 2)), Enqueued::Queued);
        assert_eq!(delivery.purge().items, 1, "those in flight aren't counted");
        assert_eq!(delivery.enqueue(item(&world, 3, 3)), Enqueued::Queued);
        gate.add_permits(10);
        let snapshot = settle(&delivery).await;
        assert_eq!(*world.delivered.lock(), [(3, 3)], "whole: {whole}");
        assert_eq!(snapshot.dropped_for(DropReason::Purged), 3, "whole: {whole}");
        assert!(world.failures.lock().is_empty());
    }
}
