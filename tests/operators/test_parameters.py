from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_feedamp.exceptions import InputError
from airflow_provider_feedamp.operators.parameters import flag, limit, rate, whole_number

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("value", "found"), [(True, True), ("True", True), (" false ", False), (False, False)]
)
def test_a_flag_is_read_as_what_it_is(value: Any, found: bool) -> None:
    assert flag("allow_empty", value) is found


@pytest.mark.parametrize(("value", "found"), [(16, 16), ("16", 16), (" 1 ", 1), (256, 256)])
def test_a_whole_number_is_read_as_what_it_is(value: Any, found: int) -> None:
    assert whole_number("max_workers", value, least=1, most=256) == found


@pytest.mark.parametrize(("value", "found"), [(0, 0), ("7", 7), (None, None), ("None", None)])
def test_a_limit_is_a_number_or_none(value: Any, found: int | None) -> None:
    assert limit("max_failures", value) == found


@pytest.mark.parametrize(
    ("value", "found"), [(2, 2.0), ("0.5", 0.5), (None, None), ("None", None), ("", None)]
)
def test_a_rate_is_a_number_above_zero_or_none(value: Any, found: float | None) -> None:
    assert rate("requests_per_second", value) == found


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (lambda value: flag("x", value), "perhaps", "x must be True or False, not 'perhaps'"),
        (lambda value: whole_number("x", value, least=1, most=9), 0, "x must be a whole number from 1 to 9"),
        (lambda value: whole_number("x", value, least=1, most=9), "10", "from 1 to 9, not '10'"),
        (lambda value: whole_number("x", value, least=1), True, "x must be a whole number from 1, not True"),
        (lambda value: limit("x", value), -1, "x must be a whole number from 0 or None, not -1"),
        (lambda value: rate("x", value), 0, "x must be a number above 0 or None, not 0"),
        (lambda value: rate("x", value), "nan", "not 'nan'"),
        (lambda value: rate("x", value), True, "not True"),
        (lambda value: rate("x", value), [1], "not \\[1\\]"),
    ],
)
def test_what_it_is_not_is_refused_by_name(read: Any, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(value)
