"""The bugs that `planted_bugs.py` plants, each with the tests that must catch it."""

from typing import Final

from planting import Plant

# What hypothesis generates comes first where it finds the bug by itself.
ANY_BYTES: Final = "yamux/test_any_bytes.py"
ANY_MESSAGES: Final = "control/test_any_bytes.py"
ANY_REQUESTS: Final = "http/test_head_properties.py"
TWO_CONNECTIONS: Final = "yamux/test_two_connections.py"

PLANTS: Final = [
    Plant(
        "lost FIN of a data frame",
        "yamux/connection.py",
        "self._body_has_fin = bool(flags & FIN)",
        "self._body_has_fin = False",
        ("yamux/test_calling_back.py",),
    ),
    Plant(
        "lost FIN of a window update",
        "yamux/connection.py",
        "self._credit(stream, length)\n        if flags & FIN:",
        "self._credit(stream, length)\n        if flags & FIN and kind == DATA:",
        (
            TWO_CONNECTIONS,
            "yamux/test_close_and_reset.py",
        ),
    ),
    Plant(
        "FIN before the body is whole",
        "yamux/connection.py",
        "if not missing and self._body_has_fin",
        "if self._body_has_fin",
        (
            ANY_BYTES,
            "yamux/test_close_and_reset.py",
        ),
    ),
    Plant(
        "receive window off by one",
        "yamux/connection.py",
        "if overrun > 0:",
        "if overrun > 1:",
        ("yamux/test_flow_control.py",),
    ),
    Plant(
        "send window off by one",
        "yamux/stream.py",
        "return most if most < credit else credit",
        "return most if most < credit else credit + 1",
        (
            TWO_CONNECTIONS,
            "yamux/test_flow_control.py",
        ),
    ),
    Plant(
        "missing implicit ACK",
        "yamux/connection.py",
        "if not stream.is_acknowledged and stream.is_local:",
        "if flags & ACK and not stream.is_acknowledged and stream.is_local:",
        (
            TWO_CONNECTIONS,
            "yamux/test_backlog.py",
        ),
    ),
    Plant(
        "ACK slot leaked by a reset",
        "yamux/connection.py",
        "self._reset_unanswered.append(stream)",
        "pass",
        (
            TWO_CONNECTIONS,
            "yamux/test_backlog.py",
        ),
    ),
    Plant(
        "duplicate ACK frees a slot",
        "yamux/connection.py",
        "if not stream.is_acknowledged and stream.is_local:",
        "if (flags & ACK or not stream.is_acknowledged) and stream.is_local:",
        ("yamux/test_backlog.py",),
    ),
    Plant(
        "backlog place leaked",
        "yamux/patience.py",
        "self._acknowledged.discard(stream)",
        "pass",
        (
            TWO_CONNECTIONS,
            "yamux/test_backlog.py",
        ),
    ),
    Plant(
        "header cut at offset 11 not put together",
        "yamux/frames.py",
        "self._partial_header = bytes(view[position:])",
        "self._partial_header = bytes(view[position : position + 10])",
        (
            ANY_BYTES,
            "yamux/test_framing.py",
        ),
    ),
    Plant(
        "credit granted twice",
        "yamux/stream.py",
        "self.owed_flags = self.owed_window = 0",
        "self.owed_flags = 0",
        (
            TWO_CONNECTIONS,
            "yamux/test_flow_control.py",
        ),
    ),
    Plant(
        "consumed bytes never granted",
        "yamux/stream.py",
        "self.ungranted += size",
        "self.ungranted += size // 2",
        (
            TWO_CONNECTIONS,
            "yamux/test_flow_control.py",
        ),
    ),
    Plant(
        "window update wakes no writer",
        "yamux/stream.py",
        "self.is_waiting_for_window = True",
        "self.is_waiting_for_window = False",
        (
            TWO_CONNECTIONS,
            "yamux/test_flow_control.py",
        ),
    ),
    Plant(
        "body of an unknown stream goes to the last one",
        "yamux/connection.py",
        "self._body_stream = stream\n",
        "self._body_stream = stream or self._body_stream\n",
        (
            TWO_CONNECTIONS,
            "yamux/test_backlog.py",
        ),
    ),
    Plant(
        "RST reported as a clean end",
        "yamux/stream.py",
        "self.handler.stream_reset(code)",
        "self.handler.stream_ended()",
        (
            TWO_CONNECTIONS,
            "yamux/test_close_and_reset.py",
        ),
    ),
    Plant(
        "finished streams never forgotten",
        "yamux/stream.py",
        "self._connection.forget(self)",
        "self.state is StreamState.RESET and self._connection.forget(self)",
        (
            TWO_CONNECTIONS,
            "yamux/test_close_and_reset.py",
        ),
    ),
    Plant(
        "GoAway overtakes data",
        "yamux/connection.py",
        "self.output.send_last(encode_header(GO_AWAY, 0, 0, code))",
        "self.output.send_urgent(encode_header(GO_AWAY, 0, 0, code))",
        (
            TWO_CONNECTIONS,
            "yamux/test_output_order.py",
        ),
    ),
    Plant(
        "RST kept until after the data, as an end",
        "mux/stream.py",
        "if not self._has_ended:\n            self._unread = None",
        "self._has_ended = True",
        ("mux/test_resets.py",),
    ),
    Plant(
        "unread data dropped on GoAway",
        "mux/stream.py",
        "self._error = self._session.end_error()",
        "self._error, self._unread = self._session.end_error(), None",
        ("mux/test_ending_sessions.py",),
    ),
    Plant(
        "escape cut from its character",
        "control/framing.py",
        "self._position += 1",
        "self._position = min(self._position + 1, limit)",
        (ANY_MESSAGES,),
    ),
    Plant(
        "beginning of the next message dropped",
        "control/framing.py",
        "del self._buffer[: self._start]",
        "del self._buffer[:]",
        (
            ANY_MESSAGES,
            "control/test_codec.py",
        ),
    ),
    Plant(
        "message size without limit",
        "control/framing.py",
        "if limit == self._start + MAX_MESSAGE_SIZE:",
        "if limit > self._start + MAX_MESSAGE_SIZE:",
        ("control/test_bad_messages.py",),
    ),
    Plant(
        "field given twice is accepted",
        "control/codec.py",
        "if len(fields) < len(pairs):",
        "if len(fields) > len(pairs):",
        ("control/test_bad_messages.py",),
    ),
    Plant(
        "half of a surrogate pair is accepted",
        "control/codec.py",
        "if lone is not None:",
        "if lone is not None and lone < 0:",
        ("control/test_bad_messages.py",),
    ),
    Plant(
        "window granted beyond its cap",
        "yamux/windows.py",
        "min(2 * stream.window, self._limits.max_receive_window)",
        "2 * stream.window",
        ("yamux/test_windows.py",),
    ),
    Plant(
        "windows granted beyond what is free",
        "yamux/windows.py",
        "min(window - stream.window, self._free // RESERVE)",
        "window - stream.window",
        ("yamux/test_windows.py",),
    ),
    Plant(
        "windows grow into what streams are promised",
        "yamux/windows.py",
        "max(self.most - promised, self.most // CROWD_SHARE)",
        "self.most",
        ("yamux/test_eviction.py",),
    ),
    Plant(
        "windows stay as large as they were before more streams came",
        "yamux/windows.py",
        "if self._free < 0:",
        "if False:",
        ("yamux/test_windows.py",),
    ),
    Plant(
        "windows of ended streams still count",
        "yamux/windows.py",
        "self.granted -= stream.window - INITIAL_WINDOW",
        "self.granted -= 0",
        (
            TWO_CONNECTIONS,
            "yamux/test_windows.py",
        ),
    ),
    Plant(
        "idle window not narrowed",
        "yamux/windows.py",
        "delta = min(stream.window // 2, max(0, stream.window - self._limits.receive_window))",
        "delta = 0",
        ("yamux/test_windows.py",),
    ),
    Plant(
        "bytes of ended streams do not count",
        "yamux/windows.py",
        "self.ended_unread[stream] = None",
        "pass",
        (
            TWO_CONNECTIONS,
            "yamux/test_eviction.py",
        ),
    ),
    Plant(
        "evicted bytes still count",
        "yamux/stream.py",
        "        self.reset()\n        self.handler.evicted()",
        "        self._reset(0)\n        self.handler.evicted()",
        (
            TWO_CONNECTIONS,
            "yamux/test_eviction.py",
        ),
    ),
    Plant(
        "held bytes not given back by a reset",
        "yamux/stream.py",
        "windows.held -= self.unread",
        "windows.held -= 0",
        (
            TWO_CONNECTIONS,
            "yamux/test_eviction.py",
        ),
    ),
    Plant(
        "wrong stream evicted",
        "yamux/connection.py",
        'holders.sort(key=attrgetter("unread"))',
        'holders.sort(key=attrgetter("unread"), reverse=True)',
        (
            TWO_CONNECTIONS,
            "yamux/test_eviction.py",
        ),
    ),
    Plant(
        "a budget that never runs out",
        "yamux/budget.py",
        "self._left -= 1",
        "self._left -= 0",
        ("yamux/test_budget.py",),
    ),
    Plant(
        "a budget that never fills again",
        "yamux/budget.py",
        "self._left + gained",
        "self._left",
        ("yamux/test_budget.py",),
    ),
    Plant(
        "refusals without limit",
        "yamux/send_queue.py",
        "if len(self._refusals) >= self._limits.max_refusals:",
        "if len(self._refusals) < 0:",
        ("yamux/test_hostile_peers.py",),
    ),
    Plant(
        "pongs without limit",
        "yamux/send_queue.py",
        "if len(self._pongs) < self._limits.max_pongs:",
        "if len(self._pongs) >= 0:",
        (
            "yamux/test_hostile_peers.py",
            "yamux/test_limits.py",
            "yamux/test_session.py",
        ),
    ),
    Plant(
        "eviction reported as a clean end",
        "mux/stream.py",
        "self._has_ended = False\n        self._session.forget_unaccepted(self)",
        "self._has_ended = True\n        self._session.forget_unaccepted(self)",
        ("mux/test_limits.py",),
    ),
    Plant(
        "the body goes on behind a reset from within",
        "yamux/connection.py",
        "if self._body_stream is stream:",
        "if self._body_stream is not stream:",
        (ANY_BYTES, "yamux/test_calling_back.py"),
    ),
    Plant(
        "a kind of value without a name",
        "control/codec.py",
        '    list: "an array",\n',
        "",
        (ANY_MESSAGES, "control/test_bad_messages.py"),
    ),
    Plant(
        "numbers of any length",
        "control/codec.py",
        "MAX_NUMBER_LENGTH: Final = 64",
        "MAX_NUMBER_LENGTH: Final = 64_000",
        ("control/test_bad_messages.py",),
    ),
    Plant(
        "a request line of one word",
        "http/head.py",
        "if version is None or version != self._parser.get_http_version():",
        "if version != self._parser.get_http_version() and version is not None:",
        (ANY_REQUESTS, "http/test_head.py"),
    ),
    Plant(
        "an error of the parser comes out",
        "http/head.py",
        "except HttpParserError as error:",
        "except HttpParserInvalidMethodError as error:",
        (ANY_REQUESTS, "http/test_head.py"),
    ),
]
