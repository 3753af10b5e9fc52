"""An MQTT 5 client that authenticates by SCRAM-SHA-256: scramp makes the messages of the exchange, the packets are made here.

usage: scram_client.py PORT USER PASSWORD [PASSWORD_AGAIN]

Prints what the broker decides, a line each: CONNACK, AUTH or DISCONNECT with its reason code in hexadecimal. With a second
password it authenticates again by that one, and publishes to itself meanwhile; what arrives is printed as MSG.
"""

import socket
import struct
import sys

from scramp import ScramClient

METHOD = "SCRAM-SHA-256"


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack(">H", len(data)) + data


def length(value):
    out = bytearray()
    while True:
        value, byte = value >> 7, value & 0x7F
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def packet(first_byte, body):
    return bytes([first_byte]) + length(len(body)) + body


def authentication(data):
    properties = b"\x15" + text(METHOD) + b"\x16" + text(data)
    return length(len(properties)) + properties


def receive(stream):
    head = stream.recv(1)
    if not head:
        return None, b""
    size, shift = 0, 0
    while True:
        byte = stream.recv(1)[0]
        size |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    body = b""
    while len(body) < size:
        body += stream.recv(size - len(body))
    return head[0], body


def authentication_data(properties):
    """The Authentication Data of a property list, with its length in front, that holds what this broker sends."""
    at, sizes = 0, {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x27: 4}
    while properties[at] & 0x80:
        at += 1
    at += 1
    while at < len(properties):
        identifier = properties[at]
        at += 1
        if identifier in sizes:
            at += sizes[identifier]
            continue
        (size,) = struct.unpack(">H", properties[at : at + 2])
        value = properties[at + 2 : at + 2 + size]
        at += 2 + size
        if identifier == 0x15:
            assert value == METHOD.encode(), value
        if identifier == 0x16:
            return value.decode()
    return None


def say(*words):
    print(*words, flush=True)


def main():
    port, user, password = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    again = sys.argv[4] if len(sys.argv) > 4 else None
    stream = socket.create_connection(("127.0.0.1", port), 60)
    client = ScramClient([METHOD], user, password)
    first = authentication(client.get_client_first())
    stream.sendall(packet(0x10, text("MQTT") + b"\x05\x02\x00\x3c" + first + text("")))
    while True:
        kind, body = receive(stream)
        if kind is None:
            say("CLOSED")
            return
        if kind == 0xF0 and body[0] == 0x18:
            client.set_server_first(authentication_data(body[1:]))
            stream.sendall(packet(0xF0, b"\x18" + authentication(client.get_client_final())))
        elif kind == 0xF0:
            client.set_server_final(authentication_data(body[1:]))
            say(f"AUTH {body[0]:02x}")
            return
        elif kind == 0x20:
            if body[1] == 0:
                # Raises unless the server has proven that it knows the user.
                client.set_server_final(authentication_data(body[2:]))
            say(f"CONNACK {body[1]:02x}")
            if body[1] != 0 or again is None:
                return
            stream.sendall(packet(0x82, b"\x00\x01\x00" + text("t") + b"\x00"))
        elif kind == 0x90:
            client = ScramClient([METHOD], user, again)
            stream.sendall(packet(0xF0, b"\x19" + authentication(client.get_client_first())))
            stream.sendall(packet(0x30, text("t") + b"\x00" + b"meanwhile"))
        elif kind == 0x30:
            say("MSG", body[4:].decode())
        elif kind == 0xE0:
            say(f"DISCONNECT {body[0]:02x}")
            return


main()
