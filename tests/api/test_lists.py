"""The rules that all three lists have in common."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.api.client import FeedAmpClient
from airflow_provider_feedamp.api.http import Pacer
from airflow_provider_feedamp.exceptions import ApiError, InputError, UnreadableError
from tests.api.edge import Edge, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.api.http import Http

pytestmark = pytest.mark.once

#: For each list: what identifies its entries, and a filter by status with one by the earliest instant.
KEYS = {
    "orders": ("mp_order_number",),
    "refunds": ("mp_order_number", "feedamp_refund_id"),
    "returns": ("mp_order_number", "mp_return_number"),
}
STATUS = {"orders": "fulfillment_status", "refunds": "refund_status", "returns": "return_status"}
AFTER = {"orders": "imported_after", "refunds": "created_after", "returns": "requested_after"}
BEFORE = {"refunds": "created_before", "returns": "requested_before"}
every_list = pytest.mark.parametrize("name", KEYS)


@pytest.fixture
def client(http: Http) -> FeedAmpClient:
    return FeedAmpClient(http)


def entry(name: str, number: int) -> dict[str, Any]:
    numbers = {"mp_order_number": f"A{number}", "feedamp_refund_id": number, "mp_return_number": f"R{number}"}
    return {key: numbers[key] for key in KEYS[name]}


def page(name: str, *numbers: int, cursor: Any = None) -> Reply:
    return Reply(200, {name: [entry(name, number) for number in numbers], "next_cursor": cursor})


@every_list
def test_all_pages_are_listed_and_the_filters_go_with_each(
    client: FeedAmpClient, edge: Edge, name: str
) -> None:
    edge.will_reply(page(name, 1, 2, cursor="c+1&"), page(name, cursor="c2"), page(name, 3))
    zone = timezone(timedelta(hours=2))
    filters = {STATUS[name]: ["X", "Y"], AFTER[name]: datetime(2024, 5, 1, tzinfo=zone), "page_size": 10}
    found = list(getattr(client, name).list(mp_order_numbers=["1", "2"], **filters))
    assert found == [entry(name, 1), entry(name, 2), entry(name, 3)]
    sent = {
        "mp_order_numbers": "1,2",
        STATUS[name]: "X,Y",
        AFTER[name]: "2024-04-30T22:00:00Z",
        "page_size": "10",
    }
    assert [request.query for request in edge.received] == [
        sent,
        sent | {"cursor": "c+1&"},
        sent | {"cursor": "c2"},
    ]
    assert {request.path for request in edge.received} == {f"/api/v1/{name}"}


@every_list
@pytest.mark.parametrize("end", [{"next_cursor": None}, {"next_cursor": ""}, {}, {"next_cursor": False}])
def test_a_list_ends_without_a_cursor(
    client: FeedAmpClient, edge: Edge, name: str, end: dict[str, Any]
) -> None:
    edge.will_reply(Reply(200, {name: [entry(name, 1)]} | end))
    assert len(list(getattr(client, name).list())) == 1
    assert len(edge.received) == 1


@every_list
def test_a_cursor_that_comes_back_is_an_error_and_not_the_end(
    client: FeedAmpClient, edge: Edge, name: str
) -> None:
    edge.will_reply(page(name, 1, cursor="a"), page(name, 2, cursor="b"), page(name, 3, cursor="a"))
    found = getattr(client, name).list()
    assert [next(found) for _ in range(3)] == [entry(name, number) for number in (1, 2, 3)]
    with pytest.raises(UnreadableError, match=f"listing {name} with the same cursor") as caught:
        next(found)
    assert caught.value.retryable
    assert len(edge.received) == 3


@every_list
@pytest.mark.parametrize("numbers", [(), (1,)])
def test_ten_pages_in_a_row_without_a_new_entry_are_an_error(
    client: FeedAmpClient, edge: Edge, name: str, numbers: tuple[int, ...]
) -> None:
    stale = [page(name, *numbers, cursor=f"c{cursor}") for cursor in range(19)]
    edge.will_reply(page(name, 1, cursor="a"), *stale[:9], page(name, 2, cursor="b"), *stale[9:])
    found = getattr(client, name).list()
    assert [next(found) for _ in range(2)] == [entry(name, 1), entry(name, 2)]
    with pytest.raises(UnreadableError, match="10 pages in a row without a new entry"):
        next(found)
    assert len(edge.received) == 1 + 9 + 1 + 10


@every_list
def test_an_entry_on_two_pages_is_listed_once(client: FeedAmpClient, edge: Edge, name: str) -> None:
    edge.will_reply(page(name, 1, 2, cursor="a"), page(name, 2, 3, 3))
    assert len(list(getattr(client, name).list())) == 3


@every_list
def test_an_entry_found_by_two_calls_is_listed_once(client: FeedAmpClient, edge: Edge, name: str) -> None:
    edge.will_reply(page(name, 1), page(name, 1, 2))
    numbers = [str(number) for number in range(60)]
    assert len(list(getattr(client, name).list(mp_order_numbers=numbers))) == 2


@pytest.mark.parametrize(("name", "own"), [("refunds", "feedamp_refund_id"), ("returns", "mp_return_number")])
def test_numbers_that_are_unique_within_their_order_only_are_kept_apart(
    client: FeedAmpClient, edge: Edge, name: str, own: str
) -> None:
    found = [{"mp_order_number": "A", own: "1"}, {"mp_order_number": "B", own: "1"}]
    edge.will_reply(Reply(200, {name: found}))
    assert list(getattr(client, name).list()) == found


@every_list
def test_entries_that_cannot_be_told_apart_are_all_listed(
    client: FeedAmpClient, edge: Edge, name: str
) -> None:
    found = [{"a": 1}, {"a": 1}, {"mp_order_number": ["A"]}, {"mp_order_number": ["A"]}]
    edge.will_reply(Reply(200, {name: found}))
    assert list(getattr(client, name).list()) == found


@every_list
def test_a_page_is_asked_for_when_it_is_needed(client: FeedAmpClient, edge: Edge, name: str) -> None:
    edge.will_reply(page(name, 1, 2, cursor="a"), page(name, 3))
    found = getattr(client, name).list()
    assert len(edge.received) == 0
    next(found)
    next(found)
    assert len(edge.received) == 1
    next(found)
    assert len(edge.received) == 2


@every_list
def test_a_choice_of_nothing_finds_nothing(client: FeedAmpClient, edge: Edge, name: str) -> None:
    nothing: list[str] = []
    for filters in (
        {"mp_order_numbers": nothing},
        {STATUS[name]: nothing},
        {STATUS[name]: nothing, "mp_order_numbers": ["A"]},
    ):
        assert list(getattr(client, name).list(**filters)) == []
    assert edge.received == []


@every_list
def test_a_bad_filter_is_refused_when_the_list_is_asked_for(
    client: FeedAmpClient, edge: Edge, name: str
) -> None:
    naive = datetime(2024, 5, 1)
    instants = [AFTER[name], *([BEFORE[name]] if name in BEFORE else [])]
    bad: list[tuple[str, Any]] = [(instant, naive) for instant in instants]
    bad += [(instant, "2024-05-01T00:00:00Z") for instant in instants]
    bad += [("page_size", 9), ("page_size", 51), ("mp_order_numbers", "600A"), ("mp_order_numbers", ["A,1"])]
    bad += [(STATUS[name], ["COMPLETE", ""]), (STATUS[name], "COMPLETE")]
    for field, value in bad:
        with pytest.raises(InputError, match=field):
            getattr(client, name).list(**{field: value})
    assert edge.received == []


@pytest.mark.parametrize("name", BEFORE)
def test_the_upper_end_is_rounded_up_and_the_lower_one_down(
    client: FeedAmpClient, edge: Edge, name: str
) -> None:
    edge.will_reply(page(name))
    instant = datetime(2024, 12, 31, 23, 59, 59, 1, tzinfo=UTC)
    assert list(getattr(client, name).list(**{AFTER[name]: instant, BEFORE[name]: instant})) == []
    query = edge.received[0].query
    assert query[AFTER[name]] == "2024-12-31T23:59:59Z"
    assert query[BEFORE[name]] == "2025-01-01T00:00:00Z"


@every_list
@pytest.mark.parametrize("body", [[], "none", {}, {"list": []}, 7])
def test_a_page_without_a_list_is_an_error(client: FeedAmpClient, edge: Edge, name: str, body: Any) -> None:
    edge.will_reply(Reply(200, body))
    with pytest.raises(ApiError, match=f"no list of {name}"):
        list(getattr(client, name).list())


@every_list
def test_a_list_of_something_else_is_an_error(client: FeedAmpClient, edge: Edge, name: str) -> None:
    edge.will_reply(Reply(200, {name: [entry(name, 1), 7]}))
    with pytest.raises(ApiError, match=f"no list of {name}"):
        list(getattr(client, name).list())


def test_the_pages_of_lists_alone_keep_to_the_pace_of_lists(
    new_http: Callable[..., Http], edge: Edge
) -> None:
    waited: list[float] = []
    client = FeedAmpClient(new_http(list_pacer=Pacer(2.0, clock=lambda: 0.0, sleep=waited.append)))
    edge.will_reply(page("orders", 1, cursor="a"), page("orders", 2), page("refunds"), page("returns"))
    for found in (client.orders.list(), client.refunds.list(), client.returns.list()):
        list(found)
    assert waited == [0.5, 1.0, 1.5]
    edge.will_reply(Reply(200, {}), Reply(200, {"refunds": []}), Reply(200, {"returns": []}))
    client.orders.get("A")
    client.refunds.of_order("A")
    client.returns.of_order("A")
    assert waited == [0.5, 1.0, 1.5]
