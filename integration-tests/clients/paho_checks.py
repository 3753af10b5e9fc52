"""What a Paho client sees of the broker.

usage: paho_checks.py PORT PROTOCOL

PROTOCOL is 3.1, 3.1.1 or 5. The environment may name another TRANSPORT than tcp (websockets), the PEM file of the authority (CA,
which means TLS) and of the client's own certificate and key (CERT, KEY). Which Paho (1.x or 2.x) is decided by PYTHONPATH. Prints the name of each check that
passed, then "all passed"; any failure raises and ends with status 1.
"""

import os
import queue
import socket
import sys

import paho.mqtt.client as mqtt

PORT = int(sys.argv[1])
PROTOCOL = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}[sys.argv[2]]
IS_V5 = PROTOCOL == mqtt.MQTTv5
PATIENCE_S = 20
TRANSPORT = os.environ.get("TRANSPORT", "tcp")

if IS_V5:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties


class Client:
    """A client whose events are awaited one by one."""

    def __init__(self, client_id, clean=True, will=None, keepalive=60, session_expiry_s=None):
        options = {"client_id": client_id, "protocol": PROTOCOL, "transport": TRANSPORT}
        if not IS_V5:
            options["clean_session"] = clean
        if hasattr(mqtt, "CallbackAPIVersion"):
            options["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION2
        self.client = mqtt.Client(**options)
        self.events = {name: queue.Queue() for name in ("connect", "message", "publish", "subscribe", "unsubscribe")}
        # The trailing arguments differ between the versions of the library and of the protocol.
        self.client.on_connect = lambda _client, _data, flags, reason, *_: self.put(
            "connect", (session_present(flags), code(reason))
        )
        self.client.on_message = lambda _client, _data, message: self.put("message", message)
        self.client.on_publish = lambda _client, _data, mid, *_: self.put("publish", mid)
        self.client.on_subscribe = lambda *arguments: self.put("subscribe", granted(arguments))
        self.client.on_unsubscribe = lambda _client, _data, mid, *_: self.put("unsubscribe", mid)
        if "CA" in os.environ:
            self.client.tls_set(os.environ["CA"], os.environ.get("CERT"), os.environ.get("KEY"))
        if will:
            self.client.will_set(*will)
        arguments = {}
        if IS_V5:
            arguments["clean_start"] = clean
            if session_expiry_s is not None:
                arguments["properties"] = Properties(PacketTypes.CONNECT)
                arguments["properties"].SessionExpiryInterval = session_expiry_s
        self.client.connect("localhost", PORT, keepalive, **arguments)
        self.client.loop_start()
        self.session_present, reason = self.next("connect")
        assert reason == 0, f"CONNACK {reason}"

    def put(self, event, value):
        self.events[event].put(value)

    def next(self, event):
        return self.events[event].get(timeout=PATIENCE_S)

    def subscribe(self, *filters):
        self.client.subscribe(list(filters))
        assert self.next("subscribe") == [qos for _, qos in filters]

    def publish(self, topic, payload, qos=0, retain=False, properties=None):
        arguments = {"properties": properties} if IS_V5 else {}
        self.client.publish(topic, payload, qos, retain, **arguments)
        self.next("publish")

    def message(self):
        return self.next("message")

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()

    def die(self):
        """Breaks the connection without DISCONNECT, and does not come back."""
        self.client.on_socket_close = None
        connection = self.client.socket()
        # Below Paho's WebSocket there is a socket, too.
        connection = getattr(connection, "_socket", connection)
        self.client._thread_terminate = True
        connection.shutdown(socket.SHUT_RDWR)
        self.client.loop_stop()


def session_present(flags):
    return bool(flags["session present"] if isinstance(flags, dict) else flags.session_present)


def code(reason):
    return reason if isinstance(reason, int) else reason.value


def granted(arguments):
    for argument in arguments[3:]:
        if isinstance(argument, (list, tuple)):
            return [code(reason) for reason in argument]
    raise AssertionError(f"no granted QoS in {arguments}")


def check_every_qos():
    subscriber, publisher = Client("subscriber"), Client("publisher")
    subscriber.subscribe(("qos/0", 0), ("qos/1", 1), ("qos/2", 2))
    for qos in (0, 1, 2):
        for number in range(100):
            publisher.publish(f"qos/{qos}", f"{number}", qos)
        for number in range(100):
            message = subscriber.message()
            assert (message.topic, message.qos, message.payload) == (f"qos/{qos}", qos, str(number).encode())
    subscriber.close()
    publisher.close()


def check_wildcards_and_unsubscribe():
    client = Client("wildcards")
    client.subscribe(("w/+/x", 0), ("end", 0))
    client.publish("w/1/x", "1")
    client.publish("w/1/y", "not matched")
    client.publish("w/2/x", "2")
    assert [client.message().payload for _ in range(2)] == [b"1", b"2"]
    client.client.unsubscribe("w/+/x")
    client.next("unsubscribe")
    client.publish("w/1/x", "no longer")
    client.publish("end", "end")
    assert client.message().topic == "end"
    client.close()


def check_retained():
    publisher = Client("publisher")
    publisher.publish("kept/x", "kept", 1, retain=True)
    subscriber = Client("subscriber")
    subscriber.subscribe(("kept/#", 1))
    message = subscriber.message()
    assert (message.payload, message.retain, message.qos) == (b"kept", True, 1)
    publisher.publish("kept/x", "", 1, retain=True)
    message = subscriber.message()
    assert (message.payload, message.retain) == (b"", False)
    subscriber.close()
    publisher.close()


def check_will():
    watcher = Client("watcher")
    watcher.subscribe(("will/#", 1))
    mortal = Client("mortal", will=("will/mortal", "gone", 1, False))
    mortal.die()
    message = watcher.message()
    assert (message.topic, message.payload, message.qos) == ("will/mortal", b"gone", 1)
    watcher.close()


def check_kept_session():
    # Not mixed: the library hands a message of QoS 2 on at PUBREL, later than one of QoS 1 that came after it.
    def qos(number):
        return 1 if number < 25 else 2

    expiry = {"session_expiry_s": 60}
    subscriber = Client("kept session", clean=False, **expiry)
    assert not subscriber.session_present
    subscriber.subscribe(("away/#", 2))
    subscriber.close()
    publisher = Client("publisher")
    for number in range(50):
        publisher.publish(f"away/{number}", str(number), qos(number))
    subscriber = Client("kept session", clean=False, **expiry)
    # A connection of version 3.1 has no way to say so.
    assert subscriber.session_present or PROTOCOL == mqtt.MQTTv31
    for number in range(50):
        message = subscriber.message()
        assert (message.payload, message.qos) == (str(number).encode(), qos(number))
    subscriber.close()
    publisher.close()
    Client("kept session").close()


def check_large_payload():
    client = Client("large")
    client.subscribe(("large", 1))
    payload = bytes(number % 251 for number in range(500_000))
    client.publish("large", payload, 1)
    assert client.message().payload == payload
    client.close()


def check_properties():
    if not IS_V5:
        return
    client = Client("properties")
    client.subscribe(("properties", 1))
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "application/json"
    properties.ResponseTopic = "answers"
    properties.CorrelationData = b"\x00\xff"
    properties.PayloadFormatIndicator = 1
    properties.MessageExpiryInterval = 100
    properties.UserProperty = [("b", "1"), ("a", "2"), ("b", "1")]
    client.publish("properties", "{}", 1, properties=properties)
    received = client.message().properties
    assert received.ContentType == "application/json"
    assert received.ResponseTopic == "answers"
    assert received.CorrelationData == b"\x00\xff"
    assert received.PayloadFormatIndicator == 1
    assert 0 < received.MessageExpiryInterval <= 100
    assert received.UserProperty == [("b", "1"), ("a", "2"), ("b", "1")]
    client.close()


for name, check in list(globals().items()):
    if name.startswith("check_"):
        check()
        print(name, flush=True)
print("all passed")
