"""The rules of feedamp-api.md A2 and the rotation modes of token-custody.md section 6, without HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.sandbox.tokens import GrantRefused, TokenDesk

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.clock import SandboxClock
    from airflow_provider_feedamp.sandbox.settings import SandboxSettings

ROTATING = ["rotate", "revoke_family", "grace"]


def refused(desk: TokenDesk, refresh_token: str) -> str:
    with pytest.raises(GrantRefused) as caught:
        desk.refresh(refresh_token)
    assert caught.value.error == "invalid_grant"
    return caught.value.description


def test_a_code_works_once(desk: TokenDesk) -> None:
    code = desk.authorize("acme")
    assert desk.seller_of(desk.exchange(code).access_token) == "acme"
    with pytest.raises(GrantRefused, match="used before"):
        desk.exchange(code)


def test_a_code_dies_of_age(desk: TokenDesk, clock: SandboxClock) -> None:
    code = desk.authorize("acme")
    clock.advance(600)
    with pytest.raises(GrantRefused, match="expired"):
        desk.exchange(code)


def test_an_access_token_ends_with_its_last_second(desk: TokenDesk, clock: SandboxClock) -> None:
    token = desk.refresh(desk.connect("acme")).access_token
    clock.advance(3599)
    assert desk.seller_of(token) == "acme"
    clock.advance(1)
    assert desk.seller_of(token) is None


def test_a_refresh_token_dies_after_its_year(desk: TokenDesk, clock: SandboxClock) -> None:
    token = desk.connect("acme")
    clock.advance(365 * 24 * 3600)
    assert "expired" in refused(desk, token)


def test_a_static_server_keeps_the_refresh_token(desk: TokenDesk, settings: SandboxSettings) -> None:
    settings.update({"rotation": "static"})
    token = desk.connect("acme")
    assert [desk.refresh(token).refresh_token for _ in range(2)] == [token, token]


@pytest.mark.parametrize("mode", ROTATING)
def test_a_rotating_server_hands_out_another_refresh_token_each_time(
    desk: TokenDesk, settings: SandboxSettings, mode: str
) -> None:
    settings.update({"rotation": mode})
    first = desk.connect("acme")
    second = desk.refresh(first).refresh_token
    third = desk.refresh(second).refresh_token
    assert len({first, second, third}) == 3
    assert desk.live("acme")["refresh_tokens"] == [third]


def test_reuse_is_refused_and_harms_nobody_when_tokens_just_rotate(desk: TokenDesk) -> None:
    old = desk.connect("acme")
    new = desk.refresh(old)
    assert "used before" in refused(desk, old)
    assert desk.seller_of(new.access_token) == "acme"
    assert desk.refresh(new.refresh_token).seller == "acme"


def test_reuse_ends_the_whole_family_and_only_it(desk: TokenDesk, settings: SandboxSettings) -> None:
    settings.update({"rotation": "revoke_family"})
    old, other_family, other_seller = desk.connect("acme"), desk.connect("acme"), desk.connect("globex")
    new = desk.refresh(old)
    assert "family is revoked" in refused(desk, old)
    assert "revoked" in refused(desk, new.refresh_token)
    assert desk.seller_of(new.access_token) is None
    assert desk.refresh(other_family).seller == "acme"
    assert desk.refresh(other_seller).seller == "globex"


def test_grace_answers_an_old_token_with_the_newest_of_its_family(
    desk: TokenDesk, settings: SandboxSettings, clock: SandboxClock
) -> None:
    settings.update({"rotation": "grace", "grace_seconds": 30})
    first = desk.connect("acme")
    second = desk.refresh(first).refresh_token
    assert desk.refresh(first).refresh_token == second
    third = desk.refresh(second).refresh_token
    clock.advance(29)
    assert desk.refresh(first).refresh_token == third
    clock.advance(1)
    assert "used before" in refused(desk, first)


@pytest.mark.parametrize(("revoke", "left"), [(False, 2), (True, 1)])
def test_a_new_access_token_ends_the_one_before_only_when_told_so(
    desk: TokenDesk, settings: SandboxSettings, revoke: bool, left: int
) -> None:
    settings.update({"revoke_old_access_token": revoke})
    desk.refresh(desk.refresh(desk.connect("acme")).refresh_token)
    assert len(desk.live("acme")["access_tokens"]) == left


def test_expiring_and_revoking_one_seller_leaves_the_others_alone(desk: TokenDesk) -> None:
    grants = {name: desk.refresh(desk.connect(name)) for name in ("acme", "globex")}
    assert (desk.expire("acme"), desk.revoke("acme")) == (1, 1)
    assert desk.live("acme") == {"refresh_tokens": [], "access_tokens": []}
    assert "revoked" in refused(desk, grants["acme"].refresh_token)
    assert desk.seller_of(grants["globex"].access_token) == "globex"


def test_the_same_run_gives_the_same_tokens_and_no_two_sellers_share_one(
    settings: SandboxSettings, clock: SandboxClock
) -> None:
    names = ["acme", "a/b", "a__b", "ü", "x" * 500, "\ud800"]
    runs = [[TokenDesk(settings, clock).connect(name) for name in names] for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == len(names)


def test_tokens_are_not_in_the_repr_of_a_grant(desk: TokenDesk) -> None:
    grant = desk.refresh(desk.connect("acme"))
    assert grant.access_token not in repr(grant)
    assert grant.refresh_token not in repr(grant)
