"""What must be true of a case that was played: each check raises `AssertionError`, and says what is not."""

from collections.abc import Sequence
from typing import Final

import attrs

from .cases import CANARY, RequestCase, ResponseCase, Wanted, WantedAnswer
from .messages import Answer, Field, NotHttp, Request, read_answers, read_requests, values_of
from .second_opinions import read_with_h11, read_with_httptools
from .stage import TUNNELS, Played

_MAX_LOGGED_TARGET: Final = 2048


@attrs.frozen
class _Outcome:
    """What a visitor was told: answers of origins' and then, perhaps, a page."""

    answers: list[Answer]
    page: Answer | None


def check_request(case: RequestCase, played: Played) -> None:
    """Check that everybody saw the same requests, and just those that *case* names."""
    outcome = _read_outcome(case.methods, played)
    expected = _choose_outcome(case, outcome)
    assert list(played.seen) == expected, "the origin saw other requests than the corpus says"
    for request in played.seen:
        assert request.tunnel == request.host.partition(".")[0], f"{request} has come to {request.tunnel}"
    assert len(outcome.answers) == len(expected), "the visitor got more or fewer answers than there were requests"
    for request, answer in zip(expected, outcome.answers, strict=True):
        assert answer.status == 200
        assert answer.is_whole
        if request.method != "HEAD":
            assert Request.from_json(answer.body) == request, "the visitor got another request's answer"
    logged = [(exchange.method, exchange.target) for exchange in played.exchanges if exchange.status is not None]
    assert logged == [(request.method, request.target[:_MAX_LOGGED_TARGET]) for request in expected], (
        "the client logged other requests"
    )
    may_leave_rest = bool(case.refused or case.may_refuse)
    _check_wires(expected, case.passes, played, may_leave_rest=may_leave_rest)


def _read_outcome(methods: Sequence[str], played: Played) -> _Outcome:
    try:
        answers, interim, surplus = read_answers(played.received, [*methods, CANARY.method], played.ending)
    except NotHttp as error:
        raise AssertionError(f"the visitor got what is no answer: {error}") from error
    assert played.ending != "silence", f"the connection did not end; so far: {played.received!r}"
    assert not surplus, f"the visitor got bytes behind the last answer: {surplus!r}"
    assert set(interim) <= {100, 103}
    page = answers.pop() if answers and answers[-1].has("Otun-Error") else None
    assert not any(answer.has("Otun-Error") for answer in answers), "an answer behind a refusal"
    return _Outcome(answers, page)


def _choose_outcome(case: RequestCase, outcome: _Outcome) -> list[Request]:
    """Return the requests that must have been seen, given how the connection ended."""
    passes = [wanted.request for wanted in case.passes]
    if outcome.page is not None:
        assert outcome.page.status in case.refused | case.may_refuse, f"refused with {outcome.page.status}"
        _check_page(outcome.page)
        return passes if case.refused else passes[:-1]
    if case.refused:
        assert "closed" in case.refused, "not refused"
        return passes
    is_canary_answered = len(outcome.answers) > len(passes)
    if case.then == "canary" and case.closes != "maybe":
        assert is_canary_answered == (case.closes == "no"), "the canary was answered" * is_canary_answered
    return [*passes, CANARY] if is_canary_answered else passes


def _check_page(page: Answer) -> None:
    assert page.is_whole
    assert values_of(page.fields, "Connection") == ["close"]
    assert values_of(page.fields, "Cache-Control") == ["no-store"]


def _check_wires(expected: list[Request], wanted: Sequence[Wanted], played: Played, *, may_leave_rest: bool) -> None:
    """Check that what came out at the far end can be read in one way only."""
    for tunnel in TUNNELS:
        found: list[Request] = []
        for wire in (wire for name, wire in played.wires if name == tunnel):
            try:
                requests, rest = read_requests(wire)
            except NotHttp as error:
                raise AssertionError(f"what was passed on is not plain: {error}") from error
            assert may_leave_rest or not rest, f"an incomplete request was passed on: {rest!r}"
            for opinion in read_with_h11(wire), read_with_httptools(wire):
                assert list(opinion.requests) == requests, "the second opinions on what was passed on differ"
                assert opinion.ending != "refused"
            found += requests
        its_expected = [request for request in expected if request.host.partition(".")[0] == tunnel]
        assert found == its_expected, "what was passed on reads otherwise than the corpus says"
        its_wanted = [entry for entry in wanted if entry.request.host.partition(".")[0] == tunnel]
        for entry, request in zip(its_wanted, found, strict=False):
            _check_fields(request.fields, entry.fields, entry.without)


def _check_fields(fields: Sequence[Field], wanted: Sequence[Field], without: Sequence[str]) -> None:
    for name, value in wanted:
        assert values_of(fields, name) == [value], f"{name} is not as it should be"
    for name in without:
        assert not values_of(fields, name), f"{name} is still there"


def check_response(case: ResponseCase, played: Played) -> None:
    """Check that the visitor got what *case* says, and that the canary was answered with the canary's answer."""
    try:
        answers, interim, surplus = read_answers(played.received, [case.method, CANARY.method], played.ending)
    except NotHttp as error:
        raise AssertionError(f"the visitor got what is no answer: {error}") from error
    assert played.ending != "silence", f"the connection did not end; so far: {played.received!r}"
    assert not surplus, f"the visitor got bytes behind the last answer: {surplus!r}"
    assert set(interim) <= {100, 103}
    assert answers, f"the visitor got no answer: {played.received!r}"
    first, *others = answers
    if first.has("Otun-Error"):
        assert first.status in case.refused, f"refused with {first.status}"
        assert first.is_whole
    elif not first.is_whole:
        assert case.may_be_cut, "cut short"
        assert case.passes is None or first.status == case.passes.status
        assert not others, "an answer behind one that was cut short"
    else:
        assert case.passes is not None, f"passed on as whole: {first}"
        _check_answer(first, case.passes)
        if case.closes != "maybe":
            assert len(others) == (case.closes == "no"), "the canary was answered" * len(others)
    for answer in others:
        assert answer.is_whole
        if not answer.has("Otun-Error"):
            assert Request.from_json(answer.body) == CANARY, "the canary got another answer than its own"


def _check_answer(answer: Answer, wanted: WantedAnswer) -> None:
    assert answer.status == wanted.status
    assert answer.body.decode("latin-1") == wanted.body
    assert answer.trailers == wanted.trailers
    _check_fields(answer.fields, wanted.fields, wanted.without)
