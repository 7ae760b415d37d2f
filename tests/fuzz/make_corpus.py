"""Writes the seeds of the harnesses into `corpus/`, and libFuzzer's dictionaries: one file for each thing to know.

Run as `.venv/bin/python tests/fuzz/make_corpus.py`.  It writes what is described here and nothing else: an input that
once made a harness fail belongs here, too.
"""

import re
import shutil
from pathlib import Path

from hello_seeds import CLIENT_HELLO, CLIENT_HELLO_WORDS
from ledger import ACK, DATA, FIN, GO_AWAY, HEADER, PING, RST, SYN, WINDOW_UPDATE
from pieces import repeat
from script import act, begin, end, flood, frame, pass_time, raw, round_trip, speak

HERE = Path(__file__).parent
WINDOW = 262_144
LARGE_WINDOW = 364_544
CLIENT, SERVER = 0, 1


def header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    return raw(HEADER.pack(0, kind, flags, stream_id, length))


def syn(stream_id: int) -> bytes:
    return frame(WINDOW_UPDATE, SYN, stream_id, 0)


CONNECTION = {
    "a stream, data, end": begin(role=SERVER, data="consume", opened="acknowledge", ended="send_eof")
    + (syn(1) + frame(DATA, 0, 1, 100) + frame(WINDOW_UPDATE, FIN, 1, 0) + speak()),
    "all in one frame": begin(role=SERVER, opened="take", data="answer", ended="fill")
    + (frame(DATA, SYN | FIN, 1, 1000) + speak() + frame(WINDOW_UPDATE, FIN, 1, 0) + speak()),
    "answered in many ways": begin(role=CLIENT, data="consume")
    + b"".join(act("open") for _ in range(5))
    + speak()
    + (frame(WINDOW_UPDATE, ACK, 1, 65_536) + frame(DATA, 0, 3, 12) + frame(DATA, ACK | FIN, 5, 11))
    + (frame(WINDOW_UPDATE, RST, 7, 12) + frame(WINDOW_UPDATE, FIN, 9, 0) + frame(WINDOW_UPDATE, ACK, 1, 0) + speak()),
    "answered before it was asked": begin(role=CLIENT, slot_freed="finish")
    + (act("open") + frame(DATA, RST | ACK, 1, 11) + speak() + act("open") + frame(DATA, 0, 3, 2) + speak()),
    "never answered": begin(role=CLIENT, slot_freed="open")
    + act("open") * 260
    + (speak() + act("reset", 1) + act("close", 2) + act("reset", 3) + speak()),
    "the window to its end": begin(role=SERVER, opened="acknowledge") + syn(1) + frame(DATA, 0, 1, WINDOW) + end(),
    "one byte beyond the window": begin(role=SERVER)
    + (syn(1) + frame(DATA, 0, 1, 131_072) + frame(DATA, 0, 1, 131_072) + frame(DATA, 0, 1, 1)),
    "a large window": begin(role=SERVER, limits="large", opened="acknowledge", data="consume_half")
    + (syn(1) + speak() + frame(DATA, 0, 1, LARGE_WINDOW) + act("consume", 0) + speak() + frame(DATA, 0, 1, 200_000)),
    "a large window that was not granted": begin(role=SERVER, limits="large")
    + (syn(1) + frame(DATA, 0, 1, WINDOW) + frame(DATA, 0, 1, 1)),
    "half a window read": begin(role=SERVER, opened="acknowledge")
    + (syn(1) + frame(DATA, 0, 1, WINDOW) + act("consume_half", 0) + speak() + frame(DATA, 0, 1, 131_072)),
    "windows one after the other": begin(role=SERVER, limits="large", opened="acknowledge", data="consume")
    + syn(1)
    + (frame(DATA, 0, 1, 200_000) + speak()) * 5,
    "credit above 32 bits": begin(role=SERVER) + syn(1) + frame(WINDOW_UPDATE, 0, 1, 2**32 - 262_144),
    "we fill the peer's window": begin(role=SERVER, opened="fill", window_opened="fill")
    + (syn(1) + speak() + frame(WINDOW_UPDATE, 0, 1, 131_072) + speak() + frame(WINDOW_UPDATE, 0, 1, 1) + speak()),
    "a full queue": begin(role=SERVER, opened="fill", window_opened="answer")
    + (syn(1) + syn(3) + syn(5) + speak() + act("decline", 1) + speak() + act("reset", 2) + speak()),
    "taken at once": begin(role=SERVER, is_eager=True, opened="fill", data="answer", window_opened="fill")
    + (
        syn(1) + frame(DATA, FIN, 1, 1000) + syn(3) + frame(WINDOW_UPDATE, 0, 1, 200_000) + act("open") + act("fill", 2)
    ),
    "cut inside headers": begin(role=SERVER, piece=11, data="consume", opened="acknowledge")
    + (syn(1) + frame(DATA, 0, 1, 100) + frame(DATA, 0, 1, 11) + frame(DATA, FIN, 1, 12) + speak()),
    "byte by byte": begin(role=CLIENT, piece=1, data="consume")
    + (act("open") + frame(DATA, ACK, 1, 100) + frame(PING, SYN, 0, 11) + frame(DATA, FIN, 1, 2) + speak()),
    "reset from within": begin(role=SERVER, piece=13, data="reset", opened="acknowledge")
    + (syn(1) + frame(DATA, FIN, 1, 100) + frame(DATA, 0, 1, 100) + syn(1) + speak()),
    "closed from within": begin(role=SERVER, data="close", ended="close")
    + (frame(DATA, SYN, 1, 100) + frame(DATA, FIN, 1, 1) + frame(WINDOW_UPDATE, FIN, 1, 0) + speak()),
    "data for nobody": begin(role=SERVER, data="consume")
    + (syn(1) + frame(DATA, 0, 1, 2) + frame(DATA, 0, 7, 1000) + frame(DATA, RST, 1, 12) + frame(DATA, 0, 1, 12)),
    "data behind the end": begin(role=SERVER, opened="acknowledge")
    + (syn(1) + frame(WINDOW_UPDATE, FIN, 1, 0) + frame(DATA, 0, 1, 11) + frame(DATA, 0, 1, 11) + speak()),
    "reset with a code": begin(role=SERVER)
    + syn(1)
    + header(WINDOW_UPDATE, RST, 1, 42)
    + frame(DATA, SYN | RST, 3, 12),
    "opened twice": begin(role=SERVER) + syn(1) + syn(1),
    "opened with our parity": begin(role=SERVER) + syn(2),
    "opened with id 0": begin(role=CLIENT) + frame(DATA, SYN, 0, 0),
    "all flags": begin(role=SERVER) + frame(WINDOW_UPDATE, 0xFF, 1, 0) + frame(DATA, 0xF1, 3, 12) + speak(),
    "too many opens": begin(role=SERVER)
    + flood(WINDOW_UPDATE, SYN, 1, 0, 300, is_counting=True)
    + (speak() + act("acknowledge", 3) + flood(DATA, SYN, 901, 12, 5, is_counting=True) + speak()),
    "rapid reset": begin(role=SERVER) + flood(WINDOW_UPDATE, SYN | RST, 1, 0, 1500, is_counting=True),
    "opens and resets": begin(role=SERVER, opened="reset") + flood(DATA, SYN, 1, 1, 1500, is_counting=True) + speak(),
    "pings unread": begin(role=SERVER) + flood(PING, SYN, 0, 65_536, 100) + speak() + frame(PING, SYN, 0, 1) + speak(),
    "pongs": begin(role=CLIENT, pong="ping")
    + act("ping")
    + speak()
    + frame(PING, ACK, 0, 0)
    + flood(PING, ACK, 0, 1, 50),
    "empty frames": begin(role=SERVER) + syn(1) + flood(DATA, 0, 1, 0, 1500) + flood(WINDOW_UPDATE, 0, 1, 0, 500),
    "credit in drops": begin(role=SERVER, opened="fill", window_opened="fill")
    + (syn(1) + flood(WINDOW_UPDATE, 0, 1, 1, 500) + speak()),
    "data in drops": begin(role=SERVER, opened="acknowledge", data="consume") + syn(1) + flood(DATA, 0, 1, 1, 1500),
    "the peer goes away": begin(role=CLIENT, went_away="open")
    + (act("open") + frame(GO_AWAY, 0, 0, 0) + act("open") + frame(DATA, 0, 1, 100) + frame(GO_AWAY, 0, 0, 1)),
    "we go away": begin(role=SERVER, opened="acknowledge", data="fill")
    + (frame(DATA, SYN, 1, 12) + act("go_away") + frame(DATA, SYN, 3, 1000) + frame(DATA, 0, 1, 12) + speak() + end()),
    "time passes": begin(role=SERVER)
    + (syn(1) + syn(3) + pass_time(31.0) + speak() + act("close", 0) + act("finish", 1) + pass_time(301.0) + speak()),
    "another protocol": begin(role=SERVER) + raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "an unknown type": begin(role=SERVER, piece=25) + raw(HEADER.pack(0, 4, 0, 1, 0)),
    "the end inside a header": begin(role=SERVER) + raw(HEADER.pack(0, 0, SYN, 1, 9)[:11]) + end(),
    "the end inside a body": begin(role=SERVER) + header(DATA, SYN, 1, 9) + raw(b"eight or") + end(),
    "the connection breaks": begin(role=SERVER, opened="acknowledge") + syn(1) + act("open") + end(is_broken=True),
    "cut in two ways": begin(role=SERVER, is_cut_twice=True, piece=11, opened="acknowledge", ended="answer")
    + (syn(1) + frame(DATA, 0, 1, 1000) + frame(DATA, FIN, 1, 100) + frame(PING, SYN, 0, 7) + frame(DATA, 0, 3, 11))
    + (act("consume", 0) + speak() + frame(DATA, 0, 1, 12) + speak()),
    "a window grows": begin(role=SERVER, limits="growing", opened="acknowledge", data="consume")
    + syn(1)
    + (frame(DATA, 0, 1, 131_072) + round_trip(0.1) + speak()) * 4
    + (frame(DATA, 0, 1, 300_000) + speak()),
    "a window shrinks": begin(role=SERVER, limits="growing", opened="acknowledge", data="consume")
    + syn(1)
    + (frame(DATA, 0, 1, 131_072) + round_trip(0.1) + speak()) * 2
    + (pass_time(300.0) + frame(DATA, 0, 1, 300_000) + speak() + frame(DATA, 0, 1, 262_144) + speak()),
    "windows grow to the limit": begin(role=SERVER, limits="crowded", opened="acknowledge", data="consume")
    + (syn(1) + syn(3) + syn(5))
    + (speak() + b"".join(frame(DATA, 0, number, 131_072) for number in (1, 3)) + round_trip(30.0)) * 3
    + (speak() + frame(DATA, 0, 5, 262_144) + act("close", 0) + frame(DATA, 0, 3, 200_000) + speak()),
    "the one that holds most is evicted": begin(role=SERVER, limits="tight", evicted="answer")
    + (syn(1) + syn(3) + frame(DATA, 0, 1, 100) + frame(DATA, 0, 3, 200_000) + frame(DATA, 0, 1, 65_536))
    + (act("consume", 0) + act("consume", 1) + frame(DATA, 0, 3, 100) + speak()),
    "evicted after its end": begin(role=SERVER, limits="tight", opened="acknowledge", ended="send_eof")
    + (syn(1) + frame(DATA, FIN, 1, 200_000) + syn(3) + frame(DATA, 0, 3, 131_072) + act("consume", 0) + speak()),
    "evicted inside a body": begin(role=SERVER, limits="tight", piece=1000)
    + (syn(1) + syn(3) + frame(DATA, 0, 1, 65_536) + frame(DATA, FIN, 3, 262_144) + speak() + frame(DATA, 0, 1, 12)),
    "read after its end": begin(role=SERVER, limits="tight", ended="send_eof")
    + (
        syn(1)
        + frame(DATA, FIN, 1, 1000)
        + act("consume_half", 0)
        + speak()
        + act("consume", 0)
        + frame(DATA, SYN, 3, 2)
    ),
    "reset with much unread": begin(role=SERVER, limits="strict and tight", data="acknowledge")
    + (frame(DATA, SYN, 1, 200_000) + frame(DATA, RST, 1, 0) + frame(DATA, SYN, 3, 200_000) + act("reset", 1))
    + (frame(DATA, SYN | FIN, 5, 200_000) + frame(WINDOW_UPDATE, RST, 5, 100) + act("consume", 2) + speak()),
    "a budget runs out": begin(role=SERVER, limits="strict")
    + (syn(1) + flood(DATA, 0, 1, 0, 10) + pass_time(0.1) + frame(DATA, 0, 1, 0)),
    "a budget fills again": begin(role=SERVER, limits="strict")
    + (flood(WINDOW_UPDATE, 0, 9, 0, 10) + pass_time(29.9) + flood(WINDOW_UPDATE, 0, 9, 0, 10))
    + flood(WINDOW_UPDATE, 0, 9, 0, 2),
    "too many resets": begin(role=SERVER, limits="strict")
    + (flood(WINDOW_UPDATE, SYN, 1, 0, 4, is_counting=True) + flood(WINDOW_UPDATE, RST, 1, 1, 4, is_counting=True)) * 4,
    "refusals unread": begin(role=SERVER, limits="strict")
    + (
        flood(DATA, SYN, 1, 11, 8, is_counting=True)
        + speak()
        + frame(DATA, SYN, 21, 0)
        + act("acknowledge", 1)
        + syn(23)
    ),
    "ends unread": begin(role=SERVER, limits="strict", opened="close")
    + (flood(DATA, SYN, 1, 2, 4, is_counting=True) + flood(DATA, SYN, 9, 2, 4, is_counting=True) + speak()),
    "full of our own": begin(role=SERVER, limits="strict")
    + act("open") * 8
    + (syn(1) + frame(DATA, ACK, 2, 0) + speak()),
    "a small queue": begin(role=SERVER, limits="strict", opened="fill", window_opened="answer")
    + (syn(1) + syn(3) + act("answer", 1) + act("answer", 0) + speak() * 3),
    "4 GiB for nobody": begin(role=SERVER) + frame(DATA, 0, 9, 2**32 - 1) + syn(1) + speak(),
    # Each stream's frame made the transport take everything, and the other one was invited again, for ever.
    "two streams that fill what is taken at once": bytes.fromhex(
        "052f98000090001101010001040106110103001100010bb4009402"
    ),
}


def message(text: str, size: int = 64) -> bytes:
    return bytes([size - 1]) + text.encode()


CONTROL = {
    "register": message('{"type":"register","subdomain":"blue","token":"s3cret"}\n', 7),
    "registered": message('{"type":"registered","url":"https://blue.example.org","subdomain":"blue"}\n'),
    "heartbeats": message('{"type":"heartbeat"}{"type":"heartbeat_ack"}\n \t\r{"type":"heartbeat"}\n', 1),
    "error": message('{"type":"error","message":"name taken","code":"taken","retryable":true}\n', 30),
    "null and unknown": message('{"type":"register","subdomain":null,"port":[1,-2.5e3,{"a":[]}]}', 3),
    "wrong kinds": message('{"type":"error","message":[],"code":{},"retryable":"no"}'),
    "a type that is no string": message('{"type":["register"]}'),
    "a number for a type": message('{"type":1.5}'),
    "no type": message("{}"),
    "an unknown type": message('{"type":"\\u00e9\\n"}'),
    "missing fields": message('{"type":"registered"}'),
    "twice the same": message('{"type":"heartbeat","type":"heartbeat"}'),
    "escapes": message('{"type":"error","message":"\\"\\\\\\/\\b\\u00e9\\ud83d\\ude00 \u00e9\U0001f600"}', 2),
    "half a pair": message('{"type":"error","message":"\\ud83d\\u0041"}', 5),
    "the other half": message('{"type":"error","message":"\\ude00"}'),
    "not a number": message('{"type":"heartbeat","x":[NaN,Infinity,-Infinity]}'),
    "an array": message('["heartbeat"]'),
    "a cut message": message('{"type":"heartbeat"', 4),
    "a cut escape": message('{"type":"error","message":"\\', 1),
    "braces in a string": message('{"type":"error","message":"}{][\\"}"}', 6),
    "not UTF-8": b"\x3f" + b'{"type":"\xff\xc3"}',
    "not JSON": message('{"type" "heartbeat",}'),
    "control characters": message('{"type":"error","message":"a\nb\0"}'),
    "a long number": b"\x3f" + b'{"type":"heartbeat","x":' + repeat(b"9", 64) + b"}",
    "too long a number": b"\x3f" + b'{"type":"heartbeat","x":-1.' + repeat(b"0", 5000) + b"}",
    "deep": b"\x3f" + b'{"type":"heartbeat","x":' + repeat(b"[", 31) + repeat(b"]", 31) + b"}",
    "too deep": b"\x09" + repeat(b'{"x":', 33),
    "too long": b"\x3f" + b'{"type":"error","message":"' + repeat(b"a", 65_535),
    "just not too long": b"\x3f" + b'{"type":"error","message":"' + repeat(b"a", 65_507) + b'"}',
    "many": b"\x3f" + repeat(b'{"type":"heartbeat"}', 200),
}

CONTROL_WORDS = (
    *(b'"type":', b'"register"', b'"registered"', b'"heartbeat"', b'"heartbeat_ack"', b'"error"', b'"subdomain":'),
    *(b'"token":', b'"url":', b'"message":', b'"code":', b'"retryable":', b"null", b"true", b"false", b"NaN", b"1e9"),
    *(b"[]", b"{}", b'""', b"\\u", b"\\ud83d", b"\\ude00", b'{"type":"heartbeat"}', b"\xfe\x01\x00\x40", b"-Infinity"),
)


def request(line: str, *fields: str, size: int = 64, rest: bytes = b"") -> bytes:
    return bytes([size - 1]) + "\r\n".join([line, *fields, "", ""]).encode("latin-1") + rest


HTTP_HEAD = {
    "GET": request("GET / HTTP/1.1", "Host: blue.example.org", "Accept: */*", size=5),
    "POST with a body": request("POST /a?b HTTP/1.1", "host:B.c.:80", "Content-Length: 3", size=1, rest=b"abc"),
    "chunked": request("PUT / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", rest=b"3\r\nabc\r\n0\r\n\r\n"),
    "upgrade": request("GET /ws HTTP/1.1", "Host: a", "Connection: upgrade", "Upgrade: websocket", rest=b"\x81\x00"),
    "absolute form": request("GET http://a.b:80/x HTTP/1.1", "Host: a.b", size=9),
    "absolute form of another": request("GET http://evil/x HTTP/1.1", "Host: a.b"),
    "another scheme": request("GET ftp://a/ HTTP/1.1", "Host: a"),
    "asterisk": request("OPTIONS * HTTP/1.0"),
    "1.0 without Host": request("GET / HTTP/1.0", "X-A: b"),
    "1.1 without Host": request("GET / HTTP/1.1", "X-A: b"),
    "two Hosts": request("GET / HTTP/1.1", "Host: a", "Host: a"),
    "an empty Host": request("GET / HTTP/1.1", "Host:"),
    "a bad Host": request("GET / HTTP/1.1", "Host: a b@c"),
    "IPv6": request("GET / HTTP/1.1", "Host: [::1]:8080"),
    "bad IPv6": request("GET / HTTP/1.1", "Host: [::1::2]"),
    "a port too high": request("GET / HTTP/1.1", "Host: a:65536"),
    "percent-encoded": request("GET / HTTP/1.1", "Host: %41%2e.b:"),
    "CONNECT": request("CONNECT a:1 HTTP/1.1", "Host: a:1"),
    "an unknown method": request("FOO / HTTP/1.1", "Host: a"),
    "RTSP": request("SETUP / RTSP/1.0", "Host: a"),
    "HTTP/2": request("PRI * HTTP/2.0", rest=b"SM\r\n\r\n"),
    "HTTP/0.9": b"\x3fGET /\r\n",
    "another version": request("GET / HTTP/1.2", "Host: a"),
    "TLS": b"\x3f\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "folded": request("GET / HTTP/1.1", "Host: a", " b"),
    "a space before the colon": request("GET / HTTP/1.1", "Host : a"),
    "bare line feeds": b"\x3fGET / HTTP/1.1\nHost: a\n\n",
    "empty lines first": b"\x02\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces": request("GET  / HTTP/1.1", "Host: a"),
    "NUL in a field": request("GET / HTTP/1.1", "Host: a", "X: \0"),
    "UTF-8 in the target": request("GET /\u00c3\u00a9 HTTP/1.1", "Host: a"),
    "a long target": b"\x3fGET /" + repeat(b"t", 8192) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target of the greatest length": b"\x3fGET /" + repeat(b"t", 8191) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target without end": b"\x3fGET /" + repeat(b"t", 40_000),
    "a hundred fields": b"\x3fGET / HTTP/1.1\r\n" + repeat(b"X: y\r\n", 99) + b"Host: a\r\n\r\n",
    "more than a hundred": b"\x3fGET / HTTP/1.1\r\n" + repeat(b"X: y\r\n", 100) + b"Host: a\r\n\r\n",
    "too large a head": b"\x3fGET / HTTP/1.1\r\nHost: a\r\nX: " + repeat(b"x", 40_000),
}

HTTP_WORDS = (
    *(
        b"GET ",
        b"POST ",
        b"OPTIONS * ",
        b"CONNECT ",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"SETUP ",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
    ),
    *(b"Host: ", b"\r\n", b"\r\n\r\n", b"http://", b"https://", b"[::1]", b":80", b":443", b"%41", b"Content-Length: "),
    *(b"Transfer-Encoding: chunked\r\n", b"Connection: upgrade\r\n", b"Upgrade: ", b"\xfe\x01\x20\x00", b" RTSP/1.0"),
)


def write(name: str, seeds: dict[str, bytes], words: tuple[bytes, ...] = ()) -> None:
    directory = HERE / "corpus" / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for title, seed in seeds.items():
        (directory / re.sub(r"[^\w.]+", "-", title)).write_bytes(seed)
    if words:
        entries = ["".join(f"\\x{byte:02x}" for byte in word) for word in words]
        (HERE / "corpus" / f"{name}.dict").write_text("".join(f'"{entry}"\n' for entry in entries))


if __name__ == "__main__":
    write("connection", CONNECTION)
    write("control", CONTROL, CONTROL_WORDS)
    write("http_head", HTTP_HEAD, HTTP_WORDS)
    write("client_hello", CLIENT_HELLO, CLIENT_HELLO_WORDS)
