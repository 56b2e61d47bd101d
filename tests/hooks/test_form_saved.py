"""A connection that is saved again in Airflow 2's form, its real web application, keeps its secrets."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow_runs import make_airflow

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not version("apache-airflow").startswith("2."), reason="Airflow 3 keeps what it hides by itself"
)

TOKEN = "extra__feedamp__refresh_token"
SELLER = "extra__feedamp__seller"
NEW = {"conn_id": "feedamp_eu", "conn_type": "feedamp", "login": "client", "password": "client-secret"}
#: What a person changes in the form, visit after visit, before saving it.
VISITS: list[dict[str, str]] = [
    NEW | {TOKEN: "first-token", SELLER: "hooli"},
    {"login": "client-2"},
    {TOKEN: "second-token"},
    {TOKEN: "third-token", "conn_id": ""},  # the form comes back: a connection needs an id
    {TOKEN: ""},
]


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory, no_dags: Path) -> list[dict[str, Any]]:
    home = make_airflow(tmp_path_factory, no_dags, {})
    shown = home.call("tests.hooks.posted_form", json.dumps(VISITS))
    return [json.loads(line) for line in shown.splitlines() if line.startswith('{"page"')]


@pytest.fixture(scope="module")
def no_dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dags")


def test_saving_again_keeps_the_refresh_token_and_the_secret(visits: list[dict[str, Any]]) -> None:
    first, again = visits[:2]

    assert first["extra"] == again["extra"] == {"refresh_token": "first-token", "seller": "hooli"}
    assert first["password"] == again["password"] == "client-secret"


def test_another_refresh_token_replaces_it(visits: list[dict[str, Any]]) -> None:
    assert visits[2]["extra"]["refresh_token"] == "second-token"


def test_a_form_that_is_refused_does_not_pass_the_former_token_for_the_new_one(
    visits: list[dict[str, Any]],
) -> None:
    refused = visits[3]

    assert refused["refused"]
    assert refused["extra"]["refresh_token"] == "second-token"
    # Saved as it comes back, it must not keep the former token while the person believes in the new one.
    assert "third-token" not in refused["again"]
    assert f'name="{TOKEN}"' in refused["again"]
    assert 'value="RATHER_LONG' not in refused["again"]


def test_an_emptied_field_takes_the_refresh_token_out(visits: list[dict[str, Any]]) -> None:
    assert visits[4]["extra"] == {"seller": "hooli"}


def test_no_page_shows_a_token(visits: list[dict[str, Any]]) -> None:
    assert not [visit for visit in visits if "-token" in visit["page"].replace("csrf-token", "")]
