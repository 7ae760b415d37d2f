"""A caller never has to pick an exception group apart: what leaves is his own, or the connection's."""

import inspect

import pytest
import trio

import otun
from otun import Lost, OtunError, Role, SessionClosed, open_session, open_tunnel
from otun.mux import StreamReset

from ..server.harness import RunningServer, loopback_settings


class OwnError(Exception):
    """Something that is the program's own affair."""


async def test_the_bodys_exception_leaves_open_tunnel_as_it_is(server: RunningServer) -> None:
    error = OwnError()
    with pytest.raises(OwnError) as caught:
        async with open_tunnel(server.control):
            raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [SystemExit(7), KeyboardInterrupt(), BaseException("any")], ids=repr)
async def test_so_do_those_that_are_no_errors(server: RunningServer, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        async with open_tunnel(server.control):
            raise error
    assert caught.value is error


async def test_the_bodys_exception_leaves_although_the_server_has_gone(server: RunningServer) -> None:
    async def lose_it() -> None:
        async with open_tunnel(server.control, reconnect=False) as tunnel:
            await server.stop()
            with pytest.raises(SessionClosed):
                await tunnel.accept()
            raise OwnError

    with pytest.raises(OwnError):
        await lose_it()


async def test_the_bodys_exception_leaves_while_the_server_is_looked_for(server: RunningServer) -> None:
    async def lose_it() -> None:
        async with open_tunnel(server.control) as tunnel:
            events = tunnel.events()
            await server.stop()
            while not isinstance(await anext(events), Lost):
                pass
            raise OwnError

    with pytest.raises(OwnError):
        await lose_it()


async def test_a_session_closed_that_the_body_does_not_catch_leaves_as_it_is(server: RunningServer) -> None:
    async def lose_it() -> None:
        async with open_tunnel(server.control, reconnect=False) as tunnel:
            await server.stop()
            await tunnel.accept()

    with pytest.raises(SessionClosed):
        await lose_it()


async def test_the_bodys_exception_leaves_open_session_as_it_is() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    with pytest.raises(OwnError):
        async with open_session(ours, "client"), open_session(theirs, Role.SERVER):
            raise OwnError


async def test_a_body_that_is_cancelled_leaves_quietly(server: RunningServer) -> None:
    with trio.move_on_after(0.05) as scope:
        async with open_tunnel(server.control):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_group_that_the_body_raises_is_not_wrapped_once_more(server: RunningServer) -> None:
    group = ExceptionGroup("own", [OwnError(), OwnError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_tunnel(server.control):
            raise group
    assert caught.value is group


async def test_listen_error_leaves_serve_as_it_is(server: RunningServer) -> None:
    with pytest.raises(otun.ListenError):
        await otun.serve(loopback_settings(public=server.public))


def test_every_error_that_otun_raises_is_an_otun_error() -> None:
    errors = [value for value in vars(otun).values() if inspect.isclass(value) and issubclass(value, BaseException)]
    assert len(errors) > 10
    assert all(issubclass(error, OtunError) for error in errors)


def test_lost_streams_are_trios_exceptions_too() -> None:
    assert issubclass(SessionClosed, trio.BrokenResourceError)
    assert issubclass(StreamReset, trio.BrokenResourceError)


def test_everything_public_is_there_and_documented() -> None:
    for name in otun.__all__:
        value = getattr(otun, name)
        assert name.startswith("__") or inspect.getdoc(value), name
    wanted = {"open_session", "Session", "Stream", "ControlChannel", "serve", "open_tunnel", "Tunnel", "forward"}
    assert wanted <= set(otun.__all__)


@pytest.mark.parametrize("thing", [otun.Session, otun.Stream, otun.ControlChannel, otun.Tunnel, otun.Exchange])
def test_every_public_method_is_documented_and_typed(thing: type) -> None:
    for name, member in vars(thing).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(function):
            assert inspect.getdoc(function), name
            assert "return" in inspect.get_annotations(function), name
