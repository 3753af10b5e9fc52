//! Attacks on resources: many sockets, slow sockets, storms. Others are served meanwhile, and memory comes back.
//!
//! An allocator keeps what it was given back for a while, and each thread of the broker has its own share of it, so that memory
//! after one attack says little. Each attack is therefore repeated until some rounds in a row have made do with what those
//! before them took. What leaks takes more in every round, and never comes to that.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "all of this file is tests")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use integration_tests::{Broker, Client, PATIENCE, Version, wire};

/// Rounds in a row that have to make do with the memory that the process had before them.
const STEADY_ROUNDS: usize = 3;

/// Rounds after which memory that still grows is called a leak. Pools, caches and the allocator usually settle in three.
const MOST_ROUNDS: usize = 24;

/// Bytes by which memory may grow over [`STEADY_ROUNDS`]: the allocator gives pages back late. A packet or buffer that leaked for
/// each connection would be more.
const ALLOWANCE_BYTES: u64 = 4 << 20;

/// Sockets of the flood; half of what a process may usually open, on both sides of it.
const FLOOD: usize = 10_000;

/// Sockets opened at once, well below what waits in the queue of a listener.
const PORTION: usize = 200;

/// Runs an attack again and again, serves a bystander after each round, and asserts that files come back and memory stops growing.
#[track_caller]
fn repeat(name: &str, broker: &Broker, mut attack: impl FnMut()) {
    let mut bystander = Client::connect(broker, Version::V5, "bystander");
    bystander.subscribe("bystander/#", 1);
    let files = broker.open_files();
    let mut sizes = Vec::new();
    while !is_steady(&sizes) {
        let round = sizes.len();
        assert!(round < MOST_ROUNDS, "{name}: memory grows without end: {sizes:?}");
        attack();
        bystander.publish("bystander/x", &round.to_string());
        assert_eq!(bystander.delivery().text(), round.to_string(), "{name}");
        let deadline = Instant::now() + PATIENCE;
        while broker.open_files() > files + 2 {
            assert!(Instant::now() < deadline, "{name}: {} files open, {files} before", broker.open_files());
            // A round trip takes the time that the broker needs to see connections end.
            bystander.ping();
        }
        sizes.push(broker.resident_bytes());
    }
    println!("{name}: {sizes:?} bytes resident after each round");
}

/// Whether the last [`STEADY_ROUNDS`] took no memory worth the name.
fn is_steady(sizes: &[u64]) -> bool {
    match sizes.iter().rev().nth(STEADY_ROUNDS) {
        Some(before) => sizes.last().is_some_and(|last| *last <= before + ALLOWANCE_BYTES),
        None => false,
    }
}

/// Opens sockets, a portion at a time: more at once than a listener's queue holds would be dropped by the system, which tries again
/// after a second.
fn open_many(broker: &Broker, count: usize) -> Vec<TcpStream> {
    let mut sockets = Vec::with_capacity(count);
    while sockets.len() < count {
        sockets.extend((sockets.len()..count).take(PORTION).map(|_| open(broker)));
        accepted(broker);
    }
    sockets
}

/// Waits until the broker has taken all sockets that were opened: one that is served came after them.
fn accepted(broker: &Broker) {
    Client::connect(broker, Version::V311, "last").ping();
}

fn open(broker: &Broker) -> TcpStream {
    let stream = TcpStream::connect(broker.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn ten_thousand_sockets_that_say_nothing() {
    let broker = Broker::builder().limit("connect_timeout", "\"60s\"").start();
    let most = rlimit();
    let count = FLOOD.min(most.saturating_sub(500));
    let before = broker.resident_bytes();
    let mut each = 0;
    repeat("half-open", &broker, || {
        let sockets = open_many(&broker, count);
        each = broker.resident_bytes().saturating_sub(before) / count as u64;
        drop(sockets);
    });
    println!("{count} sockets before CONNECT: {each} bytes of memory for each");
    assert!(each < 16 << 10, "a socket before CONNECT costs {each} bytes");
}

/// How many files this process, and the broker that it starts, may open.
fn rlimit() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX)
}

#[test]
fn a_thousand_sockets_that_send_a_byte_at_a_time() {
    let broker = Broker::builder().limit("connect_timeout", "\"60s\"").start();
    let connect = wire::bytes(&Version::V5.connect("slow"));
    repeat("slow-loris", &broker, || {
        let mut sockets = open_many(&broker, 1_000);
        for byte in &connect[..connect.len() - 1] {
            for socket in &mut sockets {
                socket.write_all(&[*byte]).unwrap();
            }
        }
    });
}

#[test]
fn half_packets_of_what_is_allowed() {
    let broker = Broker::start();
    let mut half = wire::bytes("30 808030");
    half.resize(400_000, b'x');
    repeat("half packets", &broker, || {
        let clients: Vec<_> = (0..50)
            .map(|number| {
                let mut client = Client::connect(&broker, Version::V311, &format!("half {number}"));
                client.send_bytes(&half);
                client
            })
            .collect();
        clients.into_iter().for_each(Client::drop_connection);
    });
}

#[test]
fn a_storm_of_connections() {
    let broker = Broker::start();
    repeat("connect storm", &broker, || {
        for number in 0..2_000 {
            let mut socket = open(&broker);
            socket.write_all(&wire::bytes(&Version::V5.connect(&format!("storm {number}")))).unwrap();
            if number % PORTION == 0 {
                accepted(&broker);
            }
        }
    });
}

#[test]
fn a_storm_of_takeovers() {
    let broker = Broker::start();
    repeat("takeover storm", &broker, || {
        let mut owner = Client::connect(&broker, Version::V5, "contested");
        for round in 0..1_000 {
            let version = if round % 2 == 0 { Version::V311 } else { Version::V5 };
            owner = Client::connect(&broker, version, "contested");
            owner.subscribe("contested/#", 1);
        }
        owner.ping();
    });
}

#[test]
fn a_flood_of_pings_that_nobody_reads() {
    let broker = Broker::start();
    let pings = [0xc0, 0].repeat(32_768);
    repeat("ping flood", &broker, || {
        let mut socket = open(&broker);
        socket.write_all(&wire::bytes(&Version::V311.connect("pings"))).unwrap();
        socket.set_nonblocking(true).unwrap();
        // Until the broker reads no more, or twice what it may keep has been asked for.
        for _ in 0..512 {
            if socket.write(&pings).is_err() {
                break;
            }
        }
    });
}

#[test]
fn random_packets_by_seed() {
    let broker = Broker::start();
    repeat("random packets", &broker, || {
        let mut random = fastrand::Rng::with_seed(0x7469_6465);
        for round in 0..500 {
            let version = if round % 2 == 0 { Version::V311 } else { Version::V5 };
            let mut client = Client::connect(&broker, version, "random");
            // A good packet with a few bytes changed goes further in than noise.
            let mut bytes = wire::bytes(&format!(
                "82 [0001 {p} 'a/+' 01 'b/#' 02] 34 ['a/b' 0002 {p} `payload`] 62 [0002] a2 [0003 {p} 'a/+'] c0 00",
                p = version.no_properties()
            ));
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            client.send_to_a_closing_broker(&bytes);
            client.drop_connection();
        }
    });
}

#[test]
fn a_connection_that_is_refused_is_closed() {
    let broker = Broker::start();
    repeat("refused connections", &broker, || {
        for _ in 0..500 {
            let mut socket = open(&broker);
            socket.write_all(&wire::bytes("10 ['MQTT' 05 06 003c [] 'a' [] '#' 'x']")).unwrap();
            let mut all = Vec::new();
            // Up to the end of the connection: a refusal that leaves the socket open would hang here.
            socket.read_to_end(&mut all).unwrap();
            assert_eq!(all[..2], [0x20, u8::try_from(all.len() - 2).unwrap()]);
        }
    });
}
