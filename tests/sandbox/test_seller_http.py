"""What is kept of an order, what its seller can do, whose tokens end when, and which settings do not fit."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.sandbox.server import serve
from airflow_provider_feedamp.sandbox.settings import SandboxSettings
from airflow_provider_feedamp.sandbox.state import SandboxState
from tests.sandbox.caller import Caller, raw_order

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox


def test_the_very_bytes_and_fields_nobody_documented_survive(hooli: Caller) -> None:
    raw = raw_order().replace(b"59.99", b"59.990").replace(b'"USD"', b'"USD", "gift_message": "h\xc3\xbc"')
    hooli.call("PUT", "/orders/600A", data=raw)
    assert hooli.control.orders("hooli")[0]["raw"] == raw.decode()
    assert hooli.call("GET", "/orders/600A").json()["gift_message"] == "hü"


def test_an_update_keeps_the_time_of_the_import(hooli: Caller) -> None:
    hooli.place()
    before = hooli.control.orders("hooli")[0]
    hooli.control.advance(60)
    hooli.place(delivery_notes="back door")
    after = hooli.control.orders("hooli")[0]
    assert (after["delivery_notes"], after["imported_at"]) == ("back door", before["imported_at"])
    assert after["seller_updated_at"] is None


def test_seller_updated_after_finds_only_what_a_seller_touched(hooli: Caller) -> None:
    hooli.place()
    start = hooli.control.now()
    assert hooli.numbers(seller_updated_after=start) == []
    hooli.control.advance(60)
    touched = hooli.control.acknowledge("hooli", "600A")["seller_updated_at"]
    assert hooli.numbers(seller_updated_after=touched) == ["600A"]
    hooli.control.advance(60)
    assert hooli.numbers(seller_updated_after=hooli.control.now()) == []


def test_read_only_fields_of_an_update_are_ignored(hooli: Caller) -> None:
    hooli.place()
    hooli.control.ship("hooli", "600A", mp_line_number="L2")
    hooli.place(fulfillments=[], acknowledged=True, status="COMPLETE", errors=[{"code": "X"}])
    shown = hooli.call("GET", "/orders/600A").json()
    assert len(shown["fulfillments"]) == 1
    assert (shown["acknowledged"], shown["status"], shown["errors"]) == (False, "IN_PROGRESS", [])


@pytest.mark.parametrize(("quantity", "status"), [(1, 400), (2, 200)])
def test_an_update_cannot_take_away_what_is_shipped(hooli: Caller, quantity: int, status: int) -> None:
    hooli.place()
    hooli.control.ship("hooli", "600A", mp_line_number="L1", quantity=2)
    lines = [{"mp_line_number": "L1", "sku": "S", "quantity": quantity}]
    assert hooli.place(order_lines=lines).status_code == status


@pytest.mark.parametrize(
    "details",
    [
        {"mp_line_number": "L1", "quantity": 5},
        {"mp_line_number": "L1", "quantity": 0},
        {"mp_line_number": "L9"},
        {"quantity": 1},
        {"unheard_of": 1},
    ],
    ids=str,
)
def test_the_seller_ships_and_cancels_what_is_pending(hooli: Caller, details: dict[str, Any]) -> None:
    hooli.place()
    for act in (hooli.control.ship, hooli.control.cancel):
        with pytest.raises(ValueError, match="with 4"):
            act("hooli", "600A", **details)
    hooli.control.ship("hooli", "600A")
    with pytest.raises(ValueError, match="not that much pending"):
        hooli.control.cancel("hooli", "600A")


@pytest.mark.parametrize("state", ["PENDING", "SHIPPED", "CANCELLED"])
def test_the_seller_acts_only_on_orders_that_are_open(hooli: Caller, state: str) -> None:
    hooli.place(marketplace_state=state)
    for act in (hooli.control.acknowledge, hooli.control.ship, hooli.control.cancel):
        with pytest.raises(ValueError, match="with 400"):
            act("hooli", "600A")


def test_reuse_ends_the_whole_family_and_only_it(hooli: Caller, globex: Caller) -> None:
    hooli.control.change(rotation="revoke_family")
    other = hooli.control.connect("hooli")
    old = hooli.refresh_token
    hooli.log_in()
    assert "family is revoked" in hooli.refresh(refresh_token=old).json()["error_description"]
    assert "revoked" in hooli.refresh().json()["error_description"]
    assert hooli.find().status_code == 401
    assert hooli.refresh(refresh_token=other).status_code == 200
    assert (globex.find().status_code, globex.refresh().status_code) == (200, 200)


def test_reuse_harms_nobody_when_tokens_just_rotate(hooli: Caller) -> None:
    old = hooli.refresh_token
    hooli.log_in()
    assert "used before" in hooli.refresh(refresh_token=old).json()["error_description"]
    assert (hooli.find().status_code, hooli.refresh().status_code) == (200, 200)


def test_grace_answers_an_old_token_with_the_newest_of_its_family() -> None:
    settings = SandboxSettings(rotation="grace", grace_seconds=600)
    with serve(settings, now=lambda: datetime(2024, 5, 1, tzinfo=UTC)) as sandbox:
        hooli = Caller(sandbox, "hooli")
        first = hooli.refresh_token
        hooli.log_in()
        assert hooli.refresh(refresh_token=first).json()["refresh_token"] == hooli.refresh_token
        hooli.log_in()
        sandbox.control.advance(599)
        assert hooli.refresh(refresh_token=first).json()["refresh_token"] == hooli.refresh_token
        sandbox.control.advance(1)
        assert "used before" in hooli.refresh(refresh_token=first).json()["error_description"]


@pytest.mark.parametrize(("rotation", "same"), [("static", True), ("rotate", False)])
def test_only_a_static_server_keeps_the_refresh_token(hooli: Caller, rotation: str, same: bool) -> None:
    hooli.control.change(rotation=rotation)
    assert (hooli.refresh().json()["refresh_token"] == hooli.refresh_token) is same


def test_revoking_one_seller_leaves_the_others_alone(hooli: Caller, globex: Caller) -> None:
    assert hooli.control.revoke("hooli") == 1
    assert hooli.control.refresh_tokens("hooli") == []
    assert "revoked" in hooli.refresh().json()["error_description"]
    assert globex.refresh().status_code == 200


def test_the_same_run_gives_the_same_tokens_and_no_two_sellers_share_one() -> None:
    names = ["hooli", "a/b", "a__b", "ü", "x" * 500, "\ud800"]
    runs = [[SandboxState().connect(name) for name in names] for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == len(names)


def test_no_secret_is_in_a_repr() -> None:
    state = SandboxState(SandboxSettings(client_secret="hush-hush"))
    grant = state.tokens.refresh(state.connect("hooli"))
    shown = f"{state.settings!r} {grant!r}"
    assert [each for each in (grant.access_token, grant.refresh_token, "hush-hush") if each in shown] == []


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("rotation", "sometimes", "static, rotate, revoke_family, grace"),
        ("token_encoding", None, "both, json, form"),
        ("access_token_ttl", -1, "at least 0"),
        ("access_token_ttl", 1.5, "integer"),
        ("access_token_ttl", True, "integer"),
        ("access_token_ttl", 10**10, "less than or equal"),
        ("grace_seconds", "30", "number"),
        ("grace_seconds", -0.5, "at least 0"),
        ("strict_fields", "yes", "boolean"),
        ("client_id", "", "at least 1"),
        ("token_error_status", 500, "401, 400"),
        ("refund_complete_path", "", "letters"),
        ("refund_complete_path", "a/b", "letters"),
        ("return_complete_path", "errors", "a path already"),
        ("return_complete_path", 7, "string"),
    ],
)
def test_a_setting_that_does_not_fit_says_what_would(
    sandbox: RunningSandbox, name: str, value: object, hint: str
) -> None:
    with pytest.raises(ValueError, match=f"400.*setting {name} .*{hint}"):
        sandbox.control.change(approval="auto", **{name: value})
    assert sandbox.control.settings()["approval"] == "page"


@pytest.mark.parametrize("sellers", [("hooli", "hooli"), ("",), "hooli"])
def test_sellers_have_different_names(sellers: Any) -> None:
    with pytest.raises(ValueError, match="sellers"):
        SandboxSettings(sellers=sellers)


@pytest.mark.parametrize("name", ["sellers", "seed"])
def test_what_tokens_are_made_from_cannot_change_later(sandbox: RunningSandbox, name: str) -> None:
    with pytest.raises(ValueError, match="fixed when the sandbox starts"):
        sandbox.control.change(**{name: "x"})
