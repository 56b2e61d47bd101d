"""``feedamp check`` and ``sellers list --fail-under-days``: what they print, and how they end."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.tokens.records import RecordState
from tests.cli.support import run

if TYPE_CHECKING:
    from tests.cli.support import Shop

DAY = 86400.0


def test_a_table_for_people_ends_well_when_nothing_is_wrong(shop: Shop) -> None:
    run("sellers", "refresh", "hooli", code=0)

    lines = run("check", code=0).stdout.splitlines()

    assert lines[0].split() == ["CHECKED", "FOUND"]
    assert [line.split()[0] for line in lines[1:]] == ["ok", "ok", "?", "ok", "ok", "?"]
    assert all(line.isprintable() for line in lines)


def test_what_is_wrong_is_the_exit_code_and_machines_get_an_object(shop: Shop) -> None:
    shop.put("gone", state=RecordState.REAUTH_REQUIRED, reason="it was refused")

    result = run("check", "--json", code=1)

    told = json.loads(result.stdout)
    assert (told["conn_id"], told["ok"]) == ("feedamp_default", False)
    wrong = [each for each in told["findings"] if each["ok"] is False]
    assert wrong == [
        {"subject": "seller 'gone'", "ok": False, "text": "has to be authorised again: it was refused"}
    ]
    assert result.stderr.endswith("checks found something wrong.\n")


@pytest.mark.parametrize(("days", "needy"), [("29", None), ("30", "'old'"), ("0", None)])
def test_a_refresh_token_whose_year_ends_soon_fails_the_list(
    shop: Shop, days: str, needy: str | None
) -> None:
    shop.put("old", issued_at=time.time() - 334.5 * DAY)
    shop.put("young", issued_at=time.time())

    result = run("sellers", "list", "--fail-under-days", days, code=1 if needy else 0)

    assert "young" in result.stdout
    if needy:
        assert result.stderr == "Error: 1 of 3 sellers need a person: 'old'.\n"


def test_a_seller_who_has_to_authorise_again_fails_the_list_in_any_case(shop: Shop) -> None:
    shop.put("gone", issued_at=time.time(), state=RecordState.REAUTH_REQUIRED, reason="it was refused")

    run("sellers", "list", code=0)
    assert "'gone'" in run("sellers", "list", "--json", "--fail-under-days", "0", code=1).stderr
