"""The smuggling corpus over the whole path: visitor, edge, client, origin.

Whatever a visitor sends, the edge, the client and every kind of origin see the same requests, or nothing at all; and
whatever an origin sends, each of the visitor's requests gets its own answer, whole, or one that is visibly not.
"""

import logging
from collections.abc import Iterator

import pytest

from ..server.harness import Engine, choose_engine
from .cases import CANARY, REQUEST_CASES, RESPONSE_CASES, RequestCase, ResponseCase, to_bytes
from .lax_reading import LAX_READINGS, Laxness
from .messages import write_requests
from .second_opinions import read_with_h11, read_with_httptools
from .stage import RunningStage, running_stage
from .verdicts import check_request, check_response

each_request_case = pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in REQUEST_CASES])
each_response_case = pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in RESPONSE_CASES])


@pytest.fixture(scope="module", params=["epoll", "tasks"])
def module_stage(request: pytest.FixtureRequest) -> Iterator[RunningStage]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        engine: Engine = request.param
        choose_engine(engine, monkeypatch)
        with running_stage() as running:
            yield running


@pytest.fixture
def stage(module_stage: RunningStage, caplog: pytest.LogCaptureFixture) -> Iterator[RunningStage]:
    """Nothing that a visitor or an origin does is an error of ours in the log."""
    yield module_stage
    assert not [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]


@each_request_case
def test_everybody_sees_the_same_requests(stage: RunningStage, case: RequestCase) -> None:
    readings: list[Laxness | None] = [None]
    readings += [laxness for laxness in LAX_READINGS if laxness.framing != "no te" or not case.is_chunked]
    for laxness in readings:
        played = stage.run(stage.stage.play_request, case, laxness)
        check_request(case, played)


@each_request_case
def test_requests_that_drip_are_seen_alike(stage: RunningStage, case: RequestCase) -> None:
    check_request(case, stage.run(stage.stage.play_request, case, None, is_dripping=True))


@each_response_case
def test_each_request_gets_its_own_answer(stage: RunningStage, case: ResponseCase) -> None:
    check_response(case, stage.run(stage.stage.play_response, case))


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in RESPONSE_CASES if not case.is_surplus])
def test_answers_that_drip_are_each_requests_own(stage: RunningStage, case: ResponseCase) -> None:
    # What comes late enough behind an answer cannot be told from the next one, by anybody.
    check_response(case, stage.run(stage.stage.play_response, case, is_dripping=True))


@each_request_case
def test_what_h11_and_httptools_read_differently_is_refused_or_written_anew(case: RequestCase) -> None:
    # That the edge writes it anew, and so, is for the tests above to show.
    opinions = [read_with_h11(case.sent), read_with_httptools(case.sent)]
    wanted = tuple(wanted.request for wanted in case.passes)
    if opinions[0] != opinions[1] and not case.refused:
        anew = write_requests(wanted)
        for opinion in read_with_h11(anew), read_with_httptools(anew):
            assert opinion.requests == wanted
            assert opinion.ending != "refused"


@each_request_case
def test_what_must_pass_is_read_so_by_h11_or_httptools(case: RequestCase) -> None:
    if case.may_refuse:
        return
    wanted = [(wanted.request.method, wanted.request.body) for wanted in case.passes]
    readings = [opinion(case.sent).requests[: len(wanted)] for opinion in (read_with_h11, read_with_httptools)]
    assert wanted in [[(request.method, request.body) for request in requests] for requests in readings]


def test_the_corpus_is_large_and_each_case_has_a_source() -> None:
    assert len(REQUEST_CASES) >= 80
    assert len(RESPONSE_CASES) >= 25
    for case in [*REQUEST_CASES, *RESPONSE_CASES]:
        assert case.source
        assert case.danger.endswith(".")


def test_what_is_smuggled_is_never_expected() -> None:
    assert not [case.name for case in REQUEST_CASES for wanted in case.passes if wanted.request.target == "/smuggled"]


def test_the_canary_is_read_by_every_reader() -> None:
    assert read_with_h11(write_requests([CANARY])).requests == (CANARY,)


def test_escapes_in_the_corpus_are_bytes() -> None:
    assert to_bytes("a\\r\\n\nb\\x00\\xff\\\\\\(xy*3)\\(\\x00*2)") == b"a\r\nb\x00\xff\\xyxyxy\x00\x00"
