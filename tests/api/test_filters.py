from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pendulum
import pytest

from airflow_provider_feedamp.api.lists import calls_for, instant_filter, list_filter, page_size_filter
from airflow_provider_feedamp.exceptions import InputError

NEW_YORK = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("instant", "sent"),
    [
        (datetime(2024, 5, 1, 12, tzinfo=UTC), "2024-05-01T12:00:00Z"),
        (datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2))), "2024-05-01T10:00:00Z"),
        (datetime(2024, 5, 1, 12, 0, 0, 999_999, tzinfo=UTC), "2024-05-01T12:00:00Z"),
        (datetime(2024, 11, 3, 1, 30, fold=0, tzinfo=NEW_YORK), "2024-11-03T05:30:00Z"),
        (datetime(2024, 11, 3, 1, 30, fold=1, tzinfo=NEW_YORK), "2024-11-03T06:30:00Z"),
        (pendulum.datetime(2024, 5, 1, 12, 0, 0, 5, tz="Europe/Berlin"), "2024-05-01T10:00:00Z"),
    ],
)
def test_an_instant_is_sent_in_utc(instant: datetime, sent: str) -> None:
    assert instant_filter("imported_after", instant) == sent


@pytest.mark.parametrize(
    "value", [datetime(2024, 5, 1), pendulum.naive(2024, 5, 1), date(2024, 5, 1), "2024-05-01T00:00:00Z", 0]
)
def test_an_instant_without_a_zone_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InputError, match="imported_after must be a datetime with a time zone"):
        instant_filter("imported_after", value)


@pytest.mark.parametrize(
    ("instant", "sent"),
    [
        (datetime(2024, 5, 1, 12, tzinfo=UTC), "2024-05-01T12:00:00Z"),
        (datetime(2024, 5, 1, 12, 0, 0, 1, tzinfo=UTC), "2024-05-01T12:00:01Z"),
        (datetime(2024, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "2025-01-01T00:00:00Z"),
        (datetime(2024, 11, 3, 1, 59, 59, 5, fold=0, tzinfo=NEW_YORK), "2024-11-03T06:00:00Z"),
        (pendulum.datetime(2024, 5, 1, 12, 0, 0, 5, tz="Europe/Berlin"), "2024-05-01T10:00:01Z"),
    ],
)
def test_the_latest_instant_of_a_filter_is_rounded_up(instant: datetime, sent: str) -> None:
    assert instant_filter("created_before", instant, latest=True) == sent


def test_early_years_have_four_digits() -> None:
    assert instant_filter("imported_after", datetime(1, 1, 1, tzinfo=UTC)) == "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "instant",
    [datetime.max.replace(tzinfo=UTC), datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2)))],
)
def test_an_instant_beyond_the_calendar_is_refused_by_name(instant: datetime) -> None:
    with pytest.raises(InputError, match="created_before is outside of the years 1 to 9999"):
        instant_filter("created_before", instant, latest=True)


@pytest.mark.parametrize("size", [10, 20, 50])
def test_a_page_size_within_its_bounds_is_sent(size: int) -> None:
    assert page_size_filter(size) == str(size)


@pytest.mark.parametrize("size", [9, 51, 0, -1, True, 20.0, "20", None])
def test_another_page_size_is_refused(size: Any) -> None:
    with pytest.raises(InputError, match="page_size must be a whole number from 10 to 50"):
        page_size_filter(size)


def test_values_are_kept_in_order_and_once() -> None:
    assert list_filter("mp_order_numbers", ["B", "A", "B"]) == ["B", "A"]


@pytest.mark.parametrize("values", ["A1", [""], [" "], [1], [None], ["A,1"], ["\ud800"]])
def test_values_that_a_list_cannot_carry_are_refused_by_name(values: Any) -> None:
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
    number = "😀" * 1000
    assert calls_for({}, {"mp_order_numbers": ["A", number, "B"]}) == [
        {"mp_order_numbers": "A"},
        {"mp_order_numbers": number},
        {"mp_order_numbers": "B"},
    ]
