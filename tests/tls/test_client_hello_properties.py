"""What holds for every hello, every connection's bytes, and every way to cut them."""

from hypothesis import example, given
from hypothesis import strategies as st

from otun.tls.client_hello import MAX_CLIENT_HELLO, AlertDescription, ClientHello

from .hello_wire import (
    ALPN,
    SERVER_NAME,
    alpn,
    body,
    bytewise,
    extension,
    hello,
    message,
    name,
    record,
    records,
    sni,
    vector,
)
from .reading import outcome, split

labels = st.text("abcXYZ019-_", min_size=1, max_size=63)
host_names = st.lists(labels, min_size=1, max_size=4).map(".".join).filter(lambda text: len(text) < 255)
protocol_lists = st.lists(st.binary(min_size=1, max_size=255), min_size=1, max_size=5)
sizes = st.lists(st.integers(1, 60) | st.integers(1, 2**14), min_size=1, max_size=5)
others = st.lists(
    st.builds(extension, st.integers(17, 65535), st.binary(max_size=40)), max_size=6, unique_by=lambda block: block[:2]
)

# Pieces that make connections which begin well, nearly well, or badly in every way.
NAMES = [name(b"a"), name(b"A.b."), name(b""), name(b"a\0"), name(b"x", kind=1), b"\0", b"\0\0\1", b"\0\xff\xff"]
nearly_names = st.lists(st.sampled_from(NAMES) | st.binary(max_size=4), max_size=4).map(b"".join)
nearly_protocols = st.lists(st.sampled_from([b"\2h2", b"\0", b"\1", b"\xff"]), max_size=4).map(b"".join)
off_by_one = st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1])


@st.composite
def nearly_extensions(draw: st.DrawFn) -> bytes:
    kind, value = draw(
        st.one_of(
            st.tuples(st.just(SERVER_NAME), nearly_names),
            st.tuples(st.just(ALPN), nearly_protocols),
            st.tuples(st.sampled_from([21, 0x0A0A]) | st.integers(0, 65535), st.binary(max_size=9)),
        )
    )
    value = vector(2, value, length=max(0, len(value) + draw(off_by_one))) + draw(
        st.sampled_from([b"", b"", b"", b"\0"])
    )
    return extension(kind, value, length=max(0, len(value) + draw(off_by_one)))


@st.composite
def nearly_hellos(draw: st.DrawFn) -> bytes:
    block = b"".join(draw(st.lists(nearly_extensions(), max_size=4)))
    content = body(block, session_id=bytes(draw(st.sampled_from([0, 32, 33]))))
    whole = message(content, length=len(content) + draw(off_by_one), kind=draw(st.sampled_from([1, 1, 1, 1, 2])))
    return records(whole, draw(sizes))


fragments = st.sampled_from(
    [
        *(b"\x16", b"\3\1", b"\3\3", b"\0\1", b"\0\5", b"\x40\0", b"\x40\1", b"\1\0\0\x40", b"\1", b"GET / HTTP/1.1"),
        *(record(b"\1"), record(b"\1\0\0\x30"), record(b"\0"), record(b""), record(bytes(100)), record(b"x", kind=21)),
        *(hello(sni(b"a")), hello(sni(b"a"), sizes=(1,)), hello(sni(b"a"))[:70], message(body(sni(b"a")))),
    ]
)
starts = nearly_hellos() | st.lists(fragments | st.binary(max_size=6), max_size=8).map(b"".join)


@given(host_names, protocol_lists, others, sizes, st.booleans())
def test_what_was_asked_for_is_read(
    host: str, protocols: list[bytes], around: list[bytes], sizes: list[int], has_dot: bool
) -> None:
    asked = host + "." if has_dot else host
    data = hello(*around[::2], sni(asked.encode()), *around[1::2], alpn(*protocols), sizes=sizes)
    assert outcome([data]) == ClientHello(host.lower(), tuple(protocols))


@given(starts, st.binary(max_size=20), st.lists(st.integers(0, 2000), max_size=12))
def test_bytes_split_anywhere_give_the_same(start: bytes, rest: bytes, cuts: list[int]) -> None:
    data = start + rest
    assert outcome(split(data, cuts)) == outcome([data])


@given(starts)
def test_bytes_one_by_one_give_the_same(start: bytes) -> None:
    data = start[:1000]
    assert outcome(bytewise(data)) == outcome([data])


@given(st.binary(max_size=300) | st.binary(max_size=300).map(b"\x16\3\1\1\0".__add__) | starts)
@example(b"")
@example(b"\x16\3\1\0\4\1\0\0\0")
def test_any_bytes_are_a_hello_or_its_beginning_or_refused(data: bytes) -> None:
    match outcome([data]):
        case None:
            assert len(data) < MAX_CLIENT_HELLO
        case (alert, text):
            assert alert in [*AlertDescription]
            assert text.isprintable()
        case ClientHello(server_name, protocols):
            assert server_name is None or outcome([hello(sni(server_name.encode()))]) == ClientHello(server_name)
            assert all(0 < len(protocol) < 256 for protocol in protocols)


@given(host_names, st.none() | protocol_lists, others, sizes, st.integers(0, 5000))
def test_a_hello_that_is_cut_short_is_never_one(
    host: str, protocols: list[bytes] | None, around: list[bytes], sizes: list[int], cut: int
) -> None:
    data = hello(sni(host.encode()), *around, *([alpn(*protocols[:2])] if protocols else []), sizes=sizes)
    end = cut % len(data)
    assert outcome([data[:end]]) is None
    assert outcome(bytewise(data[:-1])) is None


@given(host_names, st.data())
def test_a_message_whose_end_is_missing_is_never_a_hello(host: str, data: st.DataObject) -> None:
    """Its own length and those of the records are right; everything in it is as before."""
    whole = body(sni(host.encode()), alpn(b"h2"))
    end = data.draw(st.integers(0, len(whole) - 1))
    assert isinstance(outcome([records(message(whole[:end]))]), tuple) or end == len(body(has_extensions=False))


def test_a_hello_with_any_byte_changed_is_one_or_the_beginning_of_one_or_refused() -> None:
    data = hello(sni(b"blue.example.org"), alpn(b"h2", b"http/1.1"), sizes=(100,))
    for index in range(len(data)):
        for value in range(256):
            found = outcome([data[:index] + bytes([value]) + data[index + 1 :]])
            assert index not in (0, 1, 5) or value == data[index] or isinstance(found, tuple)
