#!/usr/bin/env python3
"""Measures what docs/decisions/0001-own-broker-core.md says about rumqttd.

usage: cargo build --release && python3 measure.py [PATH OF rumqttd-peer]

Each probe runs against a fresh process on free ports of loopback, with bytes on raw sockets, and prints what came
back. It judges nothing: the decision record does. Needs nothing but Python's standard library.
"""

import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT_BINARY = HERE / "target/release/rumqttd-peer"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Peer:
    """A fresh rumqttd with its two ports."""

    def __init__(self, binary):
        self.folder = tempfile.TemporaryDirectory()
        self.port_v4, self.port_v5 = free_port(), free_port()
        config = (HERE / "rumqttd.example.toml").read_text()
        config = config.replace("11883", str(self.port_v4)).replace("11884", str(self.port_v5))
        path = Path(self.folder.name) / "rumqttd.toml"
        path.write_text(config)
        self.log = open(Path(self.folder.name) / "log", "w+")
        self.process = subprocess.Popen([str(binary), str(path)], stdout=self.log, stderr=self.log)
        for port in (self.port_v4, self.port_v5):
            deadline = time.monotonic() + 10
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()

    def panics(self):
        self.log.flush()
        text = Path(self.log.name).read_text(errors="replace")
        found = re.findall(r"thread '[^\n]*panicked at [^\n]*(?:\n[^\n]+)?", text)
        return [" ".join(panic.split()) for panic in found]

    def resident_kib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])


def text(value):
    encoded = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(encoded)) + encoded


def packet(first, body):
    length, encoded = len(body), b""
    while True:
        length, digit = divmod(length, 128)
        encoded += bytes([digit | (0x80 if length else 0)])
        if not length:
            return bytes([first]) + encoded + body


class Client:
    def __init__(self, peer, level, client_id, keep_alive=60, flags=2, properties=b"\0", timeout=2.0):
        port = peer.port_v5 if level == 5 else peer.port_v4
        self.level = level
        self.socket = socket.create_connection(("127.0.0.1", port), 5)
        self.socket.settimeout(timeout)
        self.buffer = b""
        body = text("MQTT") + bytes([level, flags]) + struct.pack(">H", keep_alive)
        body += (properties if level == 5 else b"") + text(client_id)
        self.send(packet(0x10, body))
        self.connack = self.read()

    def none(self):
        return b"\0" if self.level == 5 else b""

    def send(self, data):
        self.socket.sendall(data)

    def read(self):
        """One packet; "closed" or "nothing" where none comes."""
        while True:
            if len(self.buffer) >= 2:
                length, shift, at = 0, 0, 1
                while at < len(self.buffer):
                    length |= (self.buffer[at] & 127) << shift
                    shift += 7
                    at += 1
                    if not self.buffer[at - 1] & 128:
                        if len(self.buffer) >= at + length:
                            whole, self.buffer = self.buffer[: at + length], self.buffer[at + length :]
                            return whole
                        break
            try:
                chunk = self.socket.recv(65536)
            except socket.timeout:
                return "nothing"
            except OSError as error:
                return f"closed ({error.strerror})"
            if not chunk:
                return "closed"
            self.buffer += chunk

    def subscribe(self, topic_filter, qos=0):
        self.send(packet(0x82, b"\0\1" + self.none() + text(topic_filter) + bytes([qos])))
        return self.read()

    def publish(self, topic, payload, qos=0, properties=None):
        identifier = b"\0\7" if qos else b""
        properties = self.none() if properties is None else properties
        self.send(packet(0x30 | qos << 1, text(topic) + identifier + properties + payload))


def show(answer):
    return answer if isinstance(answer, str) else answer.hex(" ")


def probe_keep_alive_zero(peer):
    for level in (4, 5):
        yield f"level {level}, Keep Alive 0: {show(Client(peer, level, 'a', keep_alive=0).connack)}"
        yield f"level {level}, Keep Alive 60: {show(Client(peer, level, 'a').connack)}"


def probe_publish_beyond_ascii(peer):
    subscriber = Client(peer, 4, "s")
    yield f"SUBACK for t: {show(subscriber.subscribe('t'))}"
    publisher = Client(peer, 4, "p")
    publisher.publish("\u00e9/x", b"1")
    publisher.publish("t", b"2")
    yield f"then a publish to t reaches its subscriber as: {show(subscriber.read())}"
    try:
        yield f"a new client's CONNACK: {show(Client(peer, 4, 'n').connack)}"
    except OSError as error:
        yield f"a new client: {error}"
    yield f"panics logged: {peer.panics()}"


def probe_qos_zero(peer):
    for level in (4, 5):
        for granted in (0, 1, 2):
            subscriber = Client(peer, level, f"s{level}{granted}")
            subscriber.subscribe(f"q{level}{granted}", granted)
            publisher = Client(peer, level, f"p{level}{granted}")
            publisher.publish(f"q{level}{granted}", b"x", qos=0)
            yield f"level {level}, published QoS 0, subscribed QoS {granted}: {show(subscriber.read())}"


def probe_qos_one(peer):
    for level in (4, 5):
        for granted in (0, 1, 2):
            subscriber = Client(peer, level, f"s{level}{granted}")
            subscriber.subscribe(f"q{level}{granted}", granted)
            publisher = Client(peer, level, f"p{level}{granted}")
            publisher.publish(f"q{level}{granted}", b"x", qos=1)
            yield f"level {level}, published QoS 1, subscribed QoS {granted}: {show(subscriber.read())}"


def probe_topic_alias(peer):
    # The subscriber allows 10 aliases (property 22).
    subscriber = Client(peer, 5, "s", properties=b"\3\x22\0\x0a")
    yield f"CONNACK: {show(subscriber.connack)}"
    subscriber.subscribe("a/#")
    publisher = Client(peer, 5, "p")
    for topic in ("a/1", "a/2", "a/1"):
        publisher.publish(topic, b"payload of " + topic.encode())
        answer = subscriber.read()
        readable = answer if isinstance(answer, str) else f"{answer.hex(' ')}  {answer!r}"
        yield f"published to {topic}, arrives as {readable}"


def probe_both_versions_on_one_port(peer):
    for level, port in ((5, "port_v4"), (4, "port_v5")):
        probe = type("Swapped", (), {"port_v4": getattr(peer, port), "port_v5": getattr(peer, port)})
        yield f"level {level} on the other version's port: {show(Client(probe, level, 'x').connack)}"


def probe_publish_alias_zero(peer):
    client = Client(peer, 5, "a")
    client.publish("t", b"x", properties=b"\3\x23\0\0")
    yield f"PUBLISH with Topic Alias 0: {show(client.read())}"


def probe_unexpected_packets(peer):
    frames = {
        "CONNACK from a client": "20 02 00 00",
        "second CONNECT": packet(0x10, text("MQTT") + b"\4\2\0\x3c" + text("x")).hex(),
        "PUBLISH QoS 3": "36 05 00 01 74 00 01",
        "PUBLISH with Packet Identifier 0": "32 05 00 01 74 00 00",
        "SUBSCRIBE without a filter": "82 02 00 01",
        "UNSUBSCRIBE without a filter": "a2 02 00 01",
        "PUBREL of an unknown identifier": "62 02 00 09",
        "PUBCOMP of an unknown identifier": "70 02 00 09",
        "PUBREC of an unknown identifier": "50 02 00 09",
        "PUBACK of an unknown identifier": "40 02 00 09",
        "packet type 0": "00 00",
        "AUTH in 3.1.1": "f0 00",
        "SUBACK from a client": "90 03 00 01 00",
        "PINGRESP from a client": "d0 00",
        "5 bytes of Remaining Length": "30 ff ff ff ff 01",
    }
    known = 0
    for name, frame in frames.items():
        try:
            client = Client(peer, 4, "a", timeout=1.0)
            if isinstance(client.connack, str):
                yield f"{name}: not tried, CONNACK: {client.connack}"
                continue
            client.send(bytes.fromhex(frame.replace(" ", "")))
            client.send(b"\xc0\0")
            answer = show(client.read())
            other = Client(peer, 4, "z", timeout=1.0)
            other_answer = show(other.connack)
        except OSError as error:
            answer, other_answer = "?", f"{error}"
        panics = peer.panics()
        yield f"{name}: {answer}; another client then: {other_answer}; new panics: {panics[known:]}"
        known = len(panics)


def probe_properties_towards_the_older_version(peer):
    subscriber = Client(peer, 4, "s")
    subscriber.subscribe("t")
    publisher = Client(peer, 5, "p")
    publisher.publish("t", b"x")
    yield f"3.1.1 subscriber, published from 5.0 without properties: {show(subscriber.read())}"
    publisher.publish("t", b"x", properties=b"\2\1\1")
    yield f"the same with a Payload Format Indicator: {show(subscriber.read())}"
    yield from others_then(peer)


def probe_takeover(peer):
    for level in (4, 5):
        first = Client(peer, level, "same", timeout=1.0)
        second = Client(peer, level, "same", timeout=1.0)
        yield f"level {level}: second connection {show(second.connack)}, first connection {show(first.read())}"
    yield from others_then(peer)


def probe_refused_connect(peer):
    for level, port in ((4, peer.port_v4), (5, peer.port_v5)):
        for name, frame in {
            "PINGREQ as the first packet": b"\xc0\0",
            "empty client identifier, clean session 0": packet(
                0x10, text("MQTT") + bytes([level, 0, 0, 60]) + (b"\0" if level == 5 else b"") + text("")
            ),
            "client identifier +/#": packet(
                0x10, text("MQTT") + bytes([level, 2, 0, 60]) + (b"\0" if level == 5 else b"") + text("+/#")
            ),
        }.items():
            raw = socket.create_connection(("127.0.0.1", port), 5)
            raw.settimeout(1.0)
            raw.sendall(frame)
            try:
                answer = raw.recv(100).hex(" ") or "closed"
            except OSError as error:
                answer = str(error)
            yield f"level {level}, {name}: {answer}"
    yield from others_then(peer)


def others_then(peer):
    for level in (4, 5):
        try:
            yield f"a new client of level {level} then: {show(Client(peer, level, 'new').connack)}"
        except OSError as error:
            yield f"a new client of level {level} then: {error}"
    yield f"panics logged: {peer.panics()}"


def probe_puback_before_anything_is_safe(peer):
    publisher = Client(peer, 4, "p")
    publisher.publish("t", b"kept?", qos=1)
    yield f"PUBACK with no subscriber, no disk: {show(publisher.read())}"
    # A durable session, a message for it while it is away, then kill -9.
    session = Client(peer, 4, "durable", flags=0)
    session.subscribe("d/#", 1)
    session.send(b"\xe0\0")
    session.socket.close()
    publisher.publish("d/1", b"acknowledged", qos=1)
    yield f"QoS 1 to a session that is away: {show(publisher.read())}"
    descriptors = [str(entry.readlink()) for entry in Path(f"/proc/{peer.process.pid}/fd").iterdir()]
    files = [name for name in descriptors if name.startswith("/") and not name.startswith(("/dev", "/proc"))]
    yield f"files that the process has open: {sorted({Path(name).name for name in files})}"


def probe_memory_per_client_and_topic(peer):
    count = 5_000
    before = peer.resident_kib()
    for number in range(count):
        client = Client(peer, 4, f"client-{number}")
        client.send(b"\xe0\0")
        client.socket.close()
    clients = peer.resident_kib()
    subscriber = Client(peer, 4, "s", timeout=10.0)
    publisher = Client(peer, 4, "p", timeout=10.0)
    middle = peer.resident_kib()
    for number in range(count):
        publisher.publish(f"topic/{number}", b"x", qos=1)
        publisher.read()
    topics = peer.resident_kib()
    yield f"{count} clients that came and went: {(clients - before) * 1024 // count} bytes each"
    yield f"{count} topics published to once, no subscriber: {(topics - middle) * 1024 // count} bytes each"
    del subscriber


def probe_first_publish_without_filters(peer):
    return first_publish(peer, 0)


def probe_first_publish_with_many_filters(peer):
    return first_publish(peer, 10_000)


def first_publish(peer, count):
    subscriber = Client(peer, 4, "s", timeout=20.0)
    for start in range(0, count, 100):
        body = b"".join(text(f"f/{number}/+") + b"\0" for number in range(start, start + 100))
        subscriber.send(packet(0x82, b"\0\1" + body))
        subscriber.read()
    publisher = Client(peer, 4, "p", timeout=20.0)
    times = {"first": [], "second": []}
    for number in range(200):
        for which in ("first", "second"):
            begun = time.perf_counter()
            publisher.publish(f"g/{number}", b"x", qos=1)
            publisher.read()
            times[which].append(time.perf_counter() - begun)
    for which, values in times.items():
        yield f"{which} publish to a topic, {count} filters: median {sorted(values)[100] * 1e6:.0f} us"


def main():
    binary = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_BINARY
    probes = [value for name, value in globals().items() if name.startswith("probe_")]
    for probe in probes:
        print(f"\n{probe.__name__.removeprefix('probe_').replace('_', ' ')}")
        with Peer(binary) as peer:
            for line in probe(peer):
                print(f"  {line}")


if __name__ == "__main__":
    main()
