"""The rules that all three lists have in common, and the filters as FeedAMP reads them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pendulum
import pytest

from airflow_provider_feedamp.api.client import FeedAmpClient
from airflow_provider_feedamp.api.http import Pacer
from airflow_provider_feedamp.api.lists import calls_for, instant_filter, list_filter, page_size_filter
from airflow_provider_feedamp.exceptions import ApiError, InputError, UnreadableError
from tests.api.edge import Edge, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.api.http import Http

#: For each list: what identifies its entries, and its filters by status and by instants.
KEYS = {
    "orders": ("mp_order_number",),
    "refunds": ("mp_order_number", "feedamp_refund_id"),
    "returns": ("mp_order_number", "mp_return_number"),
}
STATUS = {"orders": "fulfillment_status", "refunds": "refund_status", "returns": "return_status"}
INSTANTS = {
    "orders": ["imported_after", "seller_updated_after"],
    "refunds": ["created_after", "created_before"],
    "returns": ["requested_after", "requested_before"],
}
every_list = pytest.mark.parametrize("name", KEYS)
NEW_YORK = ZoneInfo("America/New_York")


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
    instant = datetime(2024, 5, 1, tzinfo=timezone(timedelta(hours=2)))
    filters: dict[str, Any] = {STATUS[name]: ["X", "Y"], INSTANTS[name][0]: instant, "page_size": 10}
    found = list(getattr(client, name).list(mp_order_numbers=["1", "2"], **filters))
    assert found == [entry(name, 1), entry(name, 2), entry(name, 3)]
    sent = {
        "mp_order_numbers": "1,2",
        STATUS[name]: "X,Y",
        INSTANTS[name][0]: "2024-04-30T22:00:00Z",
        "page_size": "10",
    }
    cursors: list[dict[str, str]] = [{}, {"cursor": "c+1&"}, {"cursor": "c2"}]
    assert [request.query for request in edge.received] == [sent | cursor for cursor in cursors]
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
def test_an_entry_on_two_pages_or_found_by_two_calls_is_listed_once(
    client: FeedAmpClient, edge: Edge, name: str
) -> None:
    edge.will_reply(page(name, 1, 2, cursor="a"), page(name, 2, 3, 3), page(name, 1, 4))
    numbers = [str(number) for number in range(60)]
    found = list(getattr(client, name).list(mp_order_numbers=numbers))
    assert found == [entry(name, number) for number in (1, 2, 3, 4)]


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
    calls = [len(edge.received), *(next(found) and len(edge.received) for _ in range(3))]
    assert calls == [0, 1, 1, 2]


@every_list
def test_a_choice_of_nothing_finds_nothing(client: FeedAmpClient, edge: Edge, name: str) -> None:
    nothing: dict[str, list[str]] = {STATUS[name]: []}
    nowhere: dict[str, list[str]] = {"mp_order_numbers": []}
    for filters in (nowhere, nothing, nothing | {"mp_order_numbers": ["A"]}):
        assert list(getattr(client, name).list(**filters)) == []
    assert edge.received == []


@every_list
def test_a_bad_filter_is_refused_when_the_list_is_asked_for(
    client: FeedAmpClient, edge: Edge, name: str
) -> None:
    bad: list[tuple[str, Any]] = [(instant, datetime(2024, 5, 1)) for instant in INSTANTS[name]]
    bad += [(instant, "2024-05-01T00:00:00Z") for instant in INSTANTS[name]]
    bad += [("page_size", 9), ("page_size", 51), ("mp_order_numbers", "600A"), ("mp_order_numbers", ["A,1"])]
    bad += [(STATUS[name], ["COMPLETE", ""]), (STATUS[name], "COMPLETE")]
    for field, value in bad:
        with pytest.raises(InputError, match=field):
            getattr(client, name).list(**{field: value})
    assert edge.received == []


@every_list
@pytest.mark.parametrize("entries", [None, "none", {}, 7, [7], [{}, 7]])
def test_a_page_without_a_list_of_objects_is_an_error(
    client: FeedAmpClient, edge: Edge, name: str, entries: Any
) -> None:
    bodies: list[Any] = [{name: entries}, {"list": []}, [], entries]
    for body in bodies:
        edge.will_reply(Reply(200, body))
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


@pytest.mark.parametrize(
    ("instant", "earliest", "latest"),
    [
        (datetime(2024, 5, 1, 12, tzinfo=UTC), "2024-05-01T12:00:00Z", "2024-05-01T12:00:00Z"),
        (
            datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2))),
            "2024-05-01T10:00:00Z",
            "2024-05-01T10:00:00Z",
        ),
        (datetime(2024, 5, 1, 12, 0, 0, 1, tzinfo=UTC), "2024-05-01T12:00:00Z", "2024-05-01T12:00:01Z"),
        (
            datetime(2024, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            "2024-12-31T23:59:59Z",
            "2025-01-01T00:00:00Z",
        ),
        (
            datetime(2024, 11, 3, 1, 30, fold=0, tzinfo=NEW_YORK),
            "2024-11-03T05:30:00Z",
            "2024-11-03T05:30:00Z",
        ),
        (
            datetime(2024, 11, 3, 1, 59, 59, 5, fold=1, tzinfo=NEW_YORK),
            "2024-11-03T06:59:59Z",
            "2024-11-03T07:00:00Z",
        ),
        (
            pendulum.datetime(2024, 5, 1, 12, 0, 0, 5, tz="Europe/Berlin"),
            "2024-05-01T10:00:00Z",
            "2024-05-01T10:00:01Z",
        ),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ],
)
def test_an_instant_is_sent_in_utc_and_rounded_to_the_side_where_nothing_is_missed(
    instant: datetime, earliest: str, latest: str
) -> None:
    assert instant_filter("imported_after", instant) == earliest
    assert instant_filter("created_before", instant, latest=True) == latest


@pytest.mark.parametrize(
    "value", [datetime(2024, 5, 1), pendulum.naive(2024, 5, 1), date(2024, 5, 1), "2024-05-01T00:00:00Z", 0]
)
def test_an_instant_without_a_zone_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InputError, match="imported_after must be a datetime with a time zone"):
        instant_filter("imported_after", value)


@pytest.mark.parametrize(
    "instant",
    [datetime.max.replace(tzinfo=UTC), datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2)))],
)
def test_an_instant_beyond_the_calendar_is_refused_by_name(instant: datetime) -> None:
    with pytest.raises(InputError, match="created_before is outside of the years 1 to 9999"):
        instant_filter("created_before", instant, latest=True)


@pytest.mark.parametrize("size", [9, 51, 0, -1, True, 20.0, "20", None])
def test_a_page_size_outside_of_its_bounds_is_refused(size: Any) -> None:
    assert [page_size_filter(good) for good in (10, 20, 50)] == ["10", "20", "50"]
    with pytest.raises(InputError, match="page_size must be a whole number from 10 to 50"):
        page_size_filter(size)


@pytest.mark.parametrize("values", ["A1", [""], [" "], [1], [None], ["A,1"], ["\ud800"]])
def test_values_that_a_list_cannot_carry_are_refused_by_name(values: Any) -> None:
    assert list_filter("mp_order_numbers", ["B", "A", "B"]) == ["B", "A"]
    with pytest.raises(InputError, match="mp_order_numbers"):
        list_filter("mp_order_numbers", values)


def test_long_numbers_are_asked_for_in_portions_that_a_url_can_hold() -> None:
    numbers = [f"{number}-{'😀' * 120}" for number in range(30)]
    calls = calls_for({"page_size": "50"}, {"mp_order_numbers": numbers})
    assert [number for call in calls for number in call["mp_order_numbers"].split(",")] == numbers
    assert len(calls) > 1
    assert all(len(quote(call["mp_order_numbers"])) < 7000 for call in calls)
    assert all(call["page_size"] == "50" for call in calls)


def test_one_number_that_is_longer_than_a_portion_is_asked_for_by_itself() -> None:
    numbers = ["A", "😀" * 1000, "B"]
    calls = calls_for({}, {"mp_order_numbers": numbers})
    assert calls == [{"mp_order_numbers": number} for number in numbers]
