from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest

from airflow_provider_feedamp.api.filters import instant_filter, list_filter, page_size_filter
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


@pytest.mark.parametrize("size", [10, 20, 50])
def test_a_page_size_within_its_bounds_is_sent(size: int) -> None:
    assert page_size_filter(size) == str(size)


@pytest.mark.parametrize("size", [9, 51, 0, -1, True, 20.0, "20", None])
def test_another_page_size_is_refused(size: Any) -> None:
    with pytest.raises(InputError, match="page_size must be a whole number from 10 to 50"):
        page_size_filter(size)


def test_values_are_kept_in_order_and_once() -> None:
    assert list_filter("mp_order_numbers", ["B", "A", "B"]) == ["B", "A"]


@pytest.mark.parametrize("values", ["A1", [""], [" "], [1], [None], ["A,1"]])
def test_values_that_a_list_cannot_carry_are_refused_by_name(values: Any) -> None:
    with pytest.raises(InputError, match="mp_order_numbers"):
        list_filter("mp_order_numbers", values)
