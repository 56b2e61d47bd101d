"""The control surface, and what makes a sandbox usable in tests: counters, reset, connections, isolation."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.sandbox.control import SandboxControl
from airflow_provider_feedamp.sandbox.server import serve
from airflow_provider_feedamp.sandbox.settings import SandboxSettings
from tests.sandbox.caller import Caller

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox


def test_calls_refusals_and_token_posts_are_counted_per_seller(hooli: Caller, globex: Caller) -> None:
    hooli.place()
    hooli.place(currency=None)
    hooli.find()
    hooli.refresh(refresh_token="wrong")
    globex.call("GET", "/orders/X")
    globex.call("GET", "/orders", headers={"Authorization": "Bearer wrong"})
    counters = hooli.control.counters()
    assert counters["token_posts"] == 3
    assert counters["tokens"] == {"refresh_token": {"issued": 2, "invalid_grant": 1}}
    assert counters["calls"] == {"place_order": 2, "list_orders": 2, "get_order": 1}
    assert counters["refused"] == {"400": 1, "404": 1, "401": 1}
    assert counters["sellers"]["hooli"] == {
        "token_posts": 1,
        "tokens": {"refresh_token": {"issued": 1}},
        "calls": {"place_order": 2, "list_orders": 1},
        "refused": {"400": 1},
    }
    assert counters["sellers"]["globex"]["refused"] == {"404": 1}


def test_token_posts_in_flight_at_once_are_counted(hooli: Caller) -> None:
    hooli.control.change(rotation="static")
    assert hooli.control.counters()["token_posts_in_flight_max"] == 1
    hooli.control.fault("slow", seconds=0.5, times=3)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: Caller.refresh(hooli), range(3)))
    assert [each.status_code for each in answers] == [200] * 3
    assert hooli.control.counters()["token_posts_in_flight_max"] == 3


def test_many_threads_at_once_lose_and_double_nothing(hooli: Caller) -> None:
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda index: Caller.place(hooli, f"N{index % 50}").status_code, range(200)))
    assert sorted(statuses) == [200] * 150 + [201] * 50
    assert len({each["mp_order_number"] for each in hooli.control.orders("hooli")}) == 50


def test_a_refresh_token_is_granted_once_however_many_ask_at_once(hooli: Caller) -> None:
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: Caller.refresh(hooli).status_code, range(16)))
    assert sorted(statuses) == [200] + [401] * 15


def test_a_reset_brings_the_start_back(hooli: Caller) -> None:
    first = hooli.sandbox.connection("hooli")
    fresh = Caller(hooli.sandbox, "globex").refresh_token
    hooli.place()
    hooli.control.change(rotation="static", cursor_end="empty")
    hooli.control.fault("drop")
    hooli.control.connect("initech")
    hooli.control.advance(5000)
    hooli.control.reset()
    assert hooli.control.sellers() == {"hooli": 0, "globex": 0}
    assert hooli.control.settings()["rotation"] == "rotate"
    assert hooli.control.counters()["token_posts"] == 0
    assert hooli.find().status_code == 401
    assert fresh not in hooli.control.refresh_tokens("globex")
    again = Caller(hooli.sandbox, "hooli")
    assert again.find().json()["orders"] == []
    assert first["host"] == hooli.sandbox.base_url


def test_a_connection_is_what_airflow_takes_as_json(sandbox: RunningSandbox) -> None:
    connection = sandbox.connection("globex", timeout="5", seller=None)
    assert json.loads(json.dumps(connection)) == {
        "conn_type": "feedamp",
        "host": sandbox.base_url,
        "login": "demo-client",
        "password": "demo-secret",
        "extra": {
            "refresh_token": sandbox.control.refresh_tokens("globex")[0],
            "timeout": "5",
        },
    }


def test_there_is_no_connection_for_a_seller_who_has_withdrawn(sandbox: RunningSandbox) -> None:
    sandbox.control.revoke("hooli")
    with pytest.raises(LookupError, match="hooli"):
        sandbox.connection("hooli")
    assert sandbox.control.connect("hooli") == sandbox.connection("hooli")["extra"]["refresh_token"]


def test_expiring_ends_the_access_tokens_of_one_seller(hooli: Caller, globex: Caller) -> None:
    assert hooli.control.expire("hooli") == 1
    assert [hooli.find().status_code, globex.find().status_code] == [401, 200]


def test_the_seller_can_be_played_for_an_order_with_an_odd_number(hooli: Caller) -> None:
    control, number = hooli.control, "A/1 ü%"
    hooli.place(number)
    assert control.acknowledge("hooli", number)["status"] == "IN_PROGRESS"
    assert control.ship("hooli", number, mp_line_number="L1", quantity=3)["fulfillments"][0]["pending"] == {
        "quantity": 1
    }
    assert control.cancel("hooli", number, reason="other")["status"] == "FULFILLED"
    shown = control.orders("hooli")[0]
    assert json.loads(shown["raw"])["mp_order_number"] == number
    assert shown["seller_updated_at"] >= shown["imported_at"]
    assert hooli.numbers(seller_updated_after=shown["seller_updated_at"]) == [number]


def test_the_clock_can_come_from_the_caller_and_be_moved() -> None:
    start = datetime(2024, 5, 1, 12, tzinfo=UTC)
    with serve(SandboxSettings(sellers=("hooli",)), now=lambda: start) as sandbox:
        sandbox.control.advance(90)
        assert sandbox.control.now() == (start + timedelta(seconds=90)).isoformat()
        with pytest.raises(ValueError, match="422"):
            sandbox.control.advance(-1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("rotation", "never"), ("unheard_of", 1), ("sellers", ["x"]), ("access_token_ttl", "x")],
)
def test_a_setting_that_does_not_fit_is_refused(sandbox: RunningSandbox, name: str, value: object) -> None:
    before = sandbox.control.settings()
    with pytest.raises(ValueError, match=f"400.*{name}"):
        sandbox.control.change(**{name: value})
    assert sandbox.control.settings() == before


def test_the_control_surface_speaks_json_whatever_the_error_bodies_are(sandbox: RunningSandbox) -> None:
    sandbox.control.change(error_body="html")
    with pytest.raises(ValueError, match=r"404.*NOT_FOUND"):
        sandbox.control.orders("nobody")


@pytest.mark.parametrize(
    "body", ['{"seller": 1e999}', '{"seller": ["\\ud800"]}', '{"seller": NaN}', "{", "[]", ""]
)
def test_a_body_that_cannot_be_read_is_422_and_not_quoted(hooli: Caller, body: str) -> None:
    url = hooli.sandbox.base_url.replace("/api/v1", "/_sandbox/sellers")
    answer = hooli.session.post(url, body, headers={"Content-Type": "application/json"}, timeout=30)
    assert (answer.status_code, answer.json()[0]["code"]) == (422, "INVALID_PAYLOAD")


def test_the_control_surface_shows_text_that_utf8_has_not(hooli: Caller) -> None:
    assert hooli.place(delivery_notes="\ud800").status_code == 201
    assert hooli.control.orders("hooli")[0]["delivery_notes"] == "\ud800"


def test_the_secret_is_not_shown(sandbox: RunningSandbox) -> None:
    assert "demo-secret" not in str(sandbox.control.settings())


def test_two_sandboxes_of_one_process_know_nothing_of_each_other(sandbox: RunningSandbox) -> None:
    with serve(SandboxSettings(seed="other")) as other:
        assert other.base_url != sandbox.base_url
        Caller(other, "hooli").place()
        assert sandbox.control.sellers() == {"hooli": 0, "globex": 0}
        assert other.control.refresh_tokens("hooli") != sandbox.control.refresh_tokens("hooli")


def test_a_control_needs_only_the_base_url(sandbox: RunningSandbox) -> None:
    assert SandboxControl(sandbox.base_url).sellers() == {"hooli": 0, "globex": 0}


def test_the_port_is_free_again_after_the_block() -> None:
    with serve() as first:
        port = int(first.base_url.split(":")[2].split("/")[0])
    with serve(port=port) as second:
        assert second.base_url == first.base_url
