"""What the reader says of a connection's bytes."""

from collections.abc import Iterable

from otun.errors import BadClientHello
from otun.tls.client_hello import ClientHello, ClientHelloReader


def read(data: bytes) -> ClientHello | None:
    return ClientHelloReader().feed(data)


def outcome(pieces: Iterable[bytes]) -> ClientHello | tuple[int, str] | None:
    """Return the ClientHello in *pieces*, or the alert and the text with which they are refused."""
    reader = ClientHelloReader()
    fed = b""
    for piece in pieces:
        fed += piece
        try:
            found = reader.feed(piece)
        except BadClientHello as error:
            assert reader.received == fed
            return error.alert, str(error)
        assert reader.received == fed
        if found is not None:
            return found
    return None


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    ends = sorted(cut % (len(data) + 1) for cut in cuts)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]
