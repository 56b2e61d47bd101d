from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_feedamp.sandbox.settings import SandboxSettings


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("rotation", "sometimes", "static, rotate, revoke_family, grace"),
        ("token_encoding", None, "both, json, form"),
        ("access_token_ttl", -1, "from 0"),
        ("access_token_ttl", 1.5, "whole"),
        ("access_token_ttl", True, "from 0"),
        ("grace_seconds", "30", "from 0"),
        ("strict_fields", "yes", "true or false"),
        ("client_id", "", "not empty"),
        ("token_error_status", 500, "400 or 401"),
        ("refund_complete_path", "", "letters"),
        ("refund_complete_path", "a/b", "letters"),
        ("return_complete_path", "errors", "a path already"),
        ("return_complete_path", 7, "letters"),
        ("seller_on_v2", "yes", "true or false"),
        ("sellers", ("acme", "acme"), "different names"),
        ("sellers", ("",), "none of them empty"),
        ("sellers", "acme", "list"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_the_name_of_its_setting(
    name: str, value: Any, hint: str
) -> None:
    with pytest.raises(ValueError, match=f"setting {name} .*{hint}"):
        SandboxSettings(**{name: value})


def test_an_update_changes_all_or_nothing() -> None:
    settings = SandboxSettings()
    with pytest.raises(ValueError, match="cursor_end"):
        settings.update({"rotation": "grace", "cursor_end": "sudden"})
    assert settings.rotation == "rotate"


@pytest.mark.parametrize("name", ["sellers", "seed"])
def test_what_tokens_are_made_from_cannot_change_later(name: str) -> None:
    with pytest.raises(ValueError, match="fixed when the sandbox starts"):
        SandboxSettings().update({name: ("x",)})


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no setting 'rotations'.*rotation"):
        SandboxSettings().update({"rotations": "grace"})


def test_the_secret_is_neither_shown_nor_printed() -> None:
    settings = SandboxSettings(client_secret="hush-hush")
    assert "hush-hush" not in f"{settings!r} {settings.public()}"
