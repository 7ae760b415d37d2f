"""Fuzzes the frame decoder and the connection: whatever the peer says and the streams' owner does meanwhile.

Only `RemoteProtocolError` may come out, the wire must be framed and within the windows (`ledger.py`), and what is kept
must be counted and bounded (`invariants.py`).  The input is a script: see `script.py`.
"""

import atheris

with atheris.instrument_imports(include=["otun"]):
    from conversation import Owner

from harness import fuzz
from script import WHOLE, Script


def test_one_input(data: bytes) -> None:
    owner = Owner(Script(data))
    owner.run()
    if not owner.is_cut_twice:
        return
    other = Owner(Script(data), piece_size=WHOLE)
    other.run()
    assert owner.has_evicted is other.has_evicted, "whether streams are evicted depends on how the bytes are cut"
    if not owner.has_evicted:  # Of a stream that is reset inside a body, each piece that is there has been heard.
        assert owner.events == other.events, "the events depend on how the bytes are cut"
        assert owner.wire == other.wire, "the output depends on how the bytes are cut"


if __name__ == "__main__":
    fuzz(test_one_input)
