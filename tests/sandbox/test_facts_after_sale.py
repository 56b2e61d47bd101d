"""The sandbox against what is known of refunds (A6) and returns (A7) alike; see test_facts_oauth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sandbox.after_sale import ERROR, Thing

if TYPE_CHECKING:
    from tests.sandbox.caller import Caller


@pytest.fixture(params=["refunds", "returns"])
def thing(request: pytest.FixtureRequest, hooli: Caller) -> Thing:
    return Thing(hooli, request.param)


def test_lists_wrap_and_a_single_one_is_not_wrapped(thing: Thing) -> None:
    """A6.1 [D] rfs, A6.3 [D] rf1, A7.1 [D] rts, A7.3 [D] rt1; A6.2, A7.2 [I]: an order's are not paged."""
    shown, kind, call = thing.shown(), thing.kind, thing.call
    assert call("GET", f"/{kind}").json() == {kind: [shown], "next_cursor": None}
    assert call("GET", f"/orders/600A/{kind}").json() == {kind: [shown]}


def test_an_order_without_any_has_an_empty_list(thing: Thing) -> None:
    """A6.2, A7.2 [I]: 404 only for an unknown order."""
    thing.caller.place("600B")
    assert thing.call("GET", f"/orders/600B/{thing.kind}").json() == {thing.kind: []}


def test_completing_answers_with_nothing_and_a_second_time_changes_nothing(thing: Thing) -> None:
    """A6.4, A7.6 [I]: 200 ``{}``, then a no-op; [U] chosen: there are no active errors any more."""
    if thing.kind == "returns":
        thing.bring_to("REFUNDED")
        thing.post("errors", [ERROR])
    thing.control.change(strict_transitions=True)
    assert [thing.post("complete") for _ in range(2)] == [(200, {})] * 2
    done = {"refunds": "COMPLETE", "returns": "COMPLETED"}
    assert (thing.status, thing.shown()["errors"]) == (done[thing.kind], [])


@pytest.mark.parametrize(("strict", "answer"), [(False, 200), (True, 400)])
@pytest.mark.parametrize(
    ("kind", "before", "done"),
    [
        pytest.param("refunds", "PAUSED", "COMPLETE", id="A6.4 [I]: paused"),
        pytest.param("returns", "AWAITING_AUTHORIZATION", "COMPLETED", id="A7.6 [I]: not authorised"),
        pytest.param("returns", "AUTHORIZED", "COMPLETED", id="A7.6 [I]: before the amounts"),
    ],
)
def test_completing_too_early_is_a_switch(
    hooli: Caller, kind: str, before: str, done: str, strict: bool, answer: int
) -> None:
    """A6.4, A7.6 [I]: 400 behind strict_transitions."""
    thing = Thing(hooli, kind)
    thing.bring_to(before)
    hooli.control.change(strict_transitions=strict)
    assert thing.post("complete")[0] == answer
    assert thing.status == (before if strict else done)
    assert bool(thing.shown()["errors"]) is (strict and before == "PAUSED")


def test_the_tail_of_completing_is_a_switch(thing: Thing) -> None:
    """A1 [U]: the last segment of endpoints 11 and 18; settings refund_ and return_complete_path."""
    noun, before = thing.kind.removesuffix("s"), thing.shown()
    thing.control.change(**{f"{noun}_complete_path": "mark-done"})
    assert (thing.post("complete")[0], thing.shown()) == (404, before)
    assert thing.post("mark-done") == (200, {})
    assert thing.status.startswith("COMPLETE")
    assert thing.control.counters()["calls"][f"complete_{noun}"] == 1


@pytest.mark.parametrize(
    "body",
    [ERROR, [], [{"code": "X"}], [{"message": "m"}], [{"code": "", "message": "m"}], ["X"], None, "X", 1],
    ids=str,
)
def test_reported_errors_are_a_list_of_code_and_message(thing: Thing, body: object) -> None:
    """A6.5 [D] rfe, A7.7 [D] rte: an array, both required; A10: also for a single error."""
    before = thing.shown()
    assert thing.post("errors", body)[0] == 400
    assert thing.shown() == before


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        pytest.param("refunds", "CREATED", "PAUSED", id="A6 [D] rfs: paused on any error"),
        pytest.param("refunds", "COMPLETE", "PAUSED", id="A6 [U]: by the letter also when complete"),
        pytest.param("returns", "AWAITING_AUTHORIZATION", "AWAITING_AUTHORIZATION", id="A7.7 [U]: no paused"),
        pytest.param("returns", "AUTHORIZED", "AUTHORIZED", id="A7.7 [U]"),
        pytest.param("returns", "REFUNDED", "REFUNDED", id="A7.7 [U]: refunded"),
        pytest.param("returns", "COMPLETED", "COMPLETED", id="A7.7 [U]: completed"),
    ],
)
def test_errors_are_appended_and_pause_a_refund_alone(
    hooli: Caller, kind: str, before: str, after: str
) -> None:
    """A6.5, A7.7 [U]: appended, as for orders, so that a repeated report shows."""
    thing = Thing(hooli, kind)
    thing.bring_to(before)
    assert [thing.post("errors", [ERROR]) for _ in range(2)] == [(200, {})] * 2
    assert (thing.status, thing.shown()["errors"]) == (after, [ERROR, ERROR])


@pytest.mark.parametrize(("kind", "done"), [("refunds", "COMPLETE"), ("returns", "COMPLETED")])
def test_reporting_an_error_of_what_is_complete_is_refused_when_strict(
    hooli: Caller, kind: str, done: str
) -> None:
    """A6, A7.7 [U]; setting strict_transitions."""
    thing = Thing(hooli, kind)
    thing.bring_to(done)
    hooli.control.change(strict_transitions=True)
    assert (thing.post("errors", [ERROR])[0], thing.status) == (400, done)


@pytest.mark.parametrize("name", ["mp_line_number", "debug", "more"])
def test_a_reported_error_has_no_further_fields(thing: Thing, name: str) -> None:
    """A6.5 [D] rfe, A7.7 [D] rte: no line, no debug here; [U] ignored unless strict_fields."""
    assert thing.post("errors", [{**ERROR, name: "x"}])[0] == 200
    thing.control.change(strict_fields=True)
    assert thing.post("errors", [{**ERROR, name: "x"}])[0] == 400
