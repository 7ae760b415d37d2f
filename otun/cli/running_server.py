"""Asking the server that runs with a state folder, by its admin socket."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias, cast

import trio

from ..errors import OtunError, ServerUnreachable
from ..server.admin.place import NAME, address_of, opened_folder

Answer: TypeAlias = dict[str, object]

ANSWER_TIMEOUT: Final = 20.0
"""Seconds in which the server must answer: it waits for its database for five, at most."""

MAX_ANSWER: Final = 8 * 1024 * 1024
"""Bytes of an answer: the longest have a quarter of them."""

_READ_SIZE: Final = 256 * 1024


class NoServer(ServerUnreachable):
    """No server runs with the state folder."""


async def ask(folder: Path, do: str, **fields: object) -> Answer:
    """Have the server *do* something, and return its answer.

    Raises `NoServer`, `ServerUnreachable` when it does not answer, and `OtunError` when it does not want to.
    """
    request = json.dumps({"do": do, **fields}).encode() + b"\n"
    try:
        with trio.fail_after(ANSWER_TIMEOUT):
            async with await _connect(folder) as stream:
                with suppress(trio.BrokenResourceError):  # It may have said why it takes none, and closed.
                    await stream.send_all(request)
                line = await _receive_line(stream)
    except trio.TooSlowError:
        raise ServerUnreachable(
            f"the server with the state folder {folder} did not answer within {ANSWER_TIMEOUT:.0f} seconds"
        ) from None
    except trio.BrokenResourceError as error:
        raise ServerUnreachable(f"the server with the state folder {folder} has ended meanwhile") from error
    answer = cast("Answer", json.loads(line))
    if answer["ok"] is not True:
        raise OtunError(str(answer["error"]))
    return answer


async def ask_for_all(folder: Path, what: str, key: str) -> list[Answer]:
    """Return all *what* there are, which the server tells some at a time, by the order of their *key*."""
    answer = await ask(folder, what)
    found = rows_of(answer, what)
    while answer["more"]:
        answer = await ask(folder, what, after=found[-1][key])
        found += rows_of(answer, what)
    return found


def rows_of(answer: Answer, what: str) -> list[Answer]:
    """Return a list that is part of *answer*."""
    return cast("list[Answer]", answer[what])


async def _connect(folder: Path) -> trio.SocketStream:
    try:
        with opened_folder(folder) as descriptor:
            return await trio.open_unix_socket(address_of(folder, descriptor))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
        raise NoServer(
            f"no server runs with the state folder {folder}: start one, or name its folder with --state DIR"
        ) from error
    except PermissionError as error:
        raise OtunError(f"{folder / NAME} is for the server's own user and root alone") from error
    except OSError as error:
        raise OtunError(f"{folder / NAME}: {error.strerror or error}") from error


async def _receive_line(stream: trio.abc.ReceiveStream) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        data = await stream.receive_some(_READ_SIZE)
        received += data
        if not data or len(received) > MAX_ANSWER:
            raise trio.BrokenResourceError
    return bytes(received)
