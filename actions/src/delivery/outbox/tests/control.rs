//! What an operator does to a queue on disk.

use super::*;

const OUTBOX: QueueKey<'static> = QueueKey::Outbox { namespace: 0, name: NAME };

fn start_as(
    store: &Arc<DurableStore>,
    far: &Arc<FarSide>,
    start: Start,
) -> (Delivery<NoteSink>, RandomState) {
    let hasher = RandomState::new();
    let outbox = Outbox::new(Arc::clone(store), NAME, hasher.clone());
    let config = bounded(QueueConfig::default());
    (Delivery::spawn_on(NAME, NoteSink(Arc::clone(far)), config, 1, Some(outbox), start), hasher)
}

#[tokio::test]
async fn a_queue_that_starts_paused_keeps_what_it_finds() {
    let (disk, far) = (FaultDisk::default(), FarSide::new(true));
    let store = open(&disk);
    {
        let running = start_as(&store, &far, Start::Paused);
        for number in 0..2_000 {
            publish(&store, &running, number % 3, number);
        }
        let snapshot = stop_with_time_left(&running.0).await;
        assert_eq!((snapshot.queued, snapshot.delivered), (2_000, 0));
    }
    assert_eq!(store.queue_len(OUTBOX), 2_000);
    let running = start_as(&store, &far, Start::Paused);
    while running.0.snapshot().bytes == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((running.0.snapshot().attempts, running.0.waiting()), (0, 2_000));
    assert!(running.0.disk_bytes().is_some_and(|bytes| bytes > 2_000));
    running.0.resume();
    assert_eq!(settle(&running.0).await.delivered, 2_000);
    far.assert_seen((0..2_000).map(|number| (number % 3, number)));
}

#[tokio::test]
async fn a_purge_takes_what_is_on_disk_too_and_is_safe_when_it_is_done() {
    let (mut disk, far) = (FaultDisk::default(), FarSide::new(true));
    for start in [Start::Paused, Start::Sending] {
        let store = open(&disk);
        if start == Start::Sending {
            far.is_there.store(false, std::sync::atomic::Ordering::SeqCst);
        }
        let before = {
            // Some are of an earlier run.
            let running = start_as(&store, &far, start);
            for number in 0..3_000 {
                publish(&store, &running, number % 7, number);
            }
            stop_with_time_left(&running.0).await.queued
        };
        assert_eq!(before, 3_000);
        let running = start_as(&store, &far, start);
        for number in 3_000..3_010 {
            publish(&store, &running, number % 7, number);
        }
        let in_flight = running.0.snapshot().in_flight;
        let purge = running.0.purge();
        assert_eq!(purge.items + in_flight, 3_010);
        purge.done().await.unwrap();
        publish(&store, &running, 1, 9_999);
        far.appear();
        running.0.resume();
        let snapshot = settle(&running.0).await;
        assert_eq!(snapshot.delivered + snapshot.dropped_for(DropReason::Purged), 3_011);
        assert_eq!(far.seen.lock().last().map(|(_, note)| note.number), Some(9_999));
        assert_eq!(snapshot.delivered, 1, "nothing that was there at the purge is sent");
        assert_eq!(letters(&store), []);
        far.seen.lock().clear();
        disk = disk.power_cut(3);
    }
}

#[tokio::test]
async fn a_purge_survives_a_power_cut_once_it_is_done() {
    let (disk, far) = (FaultDisk::default(), FarSide::new(true));
    let store = open(&disk);
    let running = start_as(&store, &far, Start::Paused);
    for number in 0..700 {
        publish(&store, &running, 1, number);
    }
    running.0.purge().done().await.unwrap();
    let store = open(&disk.power_cut(5));
    assert_eq!(store.queue_len(OUTBOX), 0);
}

#[tokio::test]
async fn a_purge_of_a_retired_queue_is_done_before_that_ends() {
    let (disk, far) = (FaultDisk::default(), FarSide::new(true));
    let store = open(&disk);
    let running = start_as(&store, &far, Start::Paused);
    for number in 0..700 {
        publish(&store, &running, 1, number);
    }
    running.0.retire();
    running.0.purge().done().await.unwrap();
    while !running.0.is_finished() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nobody_hears_of_what_is_purged() {
    #[derive(Debug)]
    struct Nobody;
    impl Endings for Nobody {
        fn wants(&self, _: &str) -> bool {
            true
        }
        fn ended(&self, ended: &Ended<'_>) -> Heard {
            panic!("heard of {ended:?}")
        }
    }
    let (disk, far) = (FaultDisk::default(), FarSide::new(true));
    let store = open(&disk);
    let outbox = Outbox::new(Arc::clone(&store), NAME, RandomState::new()).heard_by(Some(Arc::new(Nobody)));
    let config = bounded(QueueConfig::default());
    let delivery = Delivery::spawn_on(NAME, NoteSink(far), config, 1, Some(outbox), Start::Paused);
    let running = (delivery, RandomState::new());
    for number in 0..5 {
        publish(&store, &running, 1, number);
    }
    running.0.purge().done().await.unwrap();
    assert_eq!(running.0.snapshot().dropped_for(DropReason::Purged), 5);
}

#[tokio::test]
async fn a_purge_that_ends_with_its_queue_says_so() {
    let (disk, far) = (FaultDisk::default(), FarSide::new(true));
    let store = open(&disk);
    let running = start_as(&store, &far, Start::Paused);
    for number in 0..3_000 {
        publish(&store, &running, 1, number);
    }
    let purge = running.0.purge();
    running.0.shutdown(Duration::ZERO).await;
    assert!(purge.done().await.is_err());
    assert!(store.queue_len(OUTBOX) > 0, "what is left is there at the next start");
}
