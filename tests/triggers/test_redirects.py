"""The answer of a person reaches the task, and not the triggerer's log."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from airflow import __version__ as airflow_version
from packaging.version import Version

from airflow_provider_feedamp.triggers.polling import RedirectTrigger

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent

pytestmark = pytest.mark.skipif(
    Version(airflow_version).release < (3, 1), reason="Airflow asks people from 3.1 on"
)
PASTED = "http://127.0.0.1/?code=sbx-unspent&state=s"
ARGUMENTS: dict[str, Any] = {
    "ti_id": UUID("0198b6f5-7b6c-7000-8000-000000000001"),
    "options": ["yes"],
    "params": {"redirect_url": {"value": None, "description": "", "schema": {"type": ["null", "string"]}}},
    "defaults": None,
    "multiple": False,
    "timeout_datetime": None,
    "poke_interval": 0.01,
}


@pytest.mark.parametrize("late", [False, True])
def test_what_was_pasted_is_in_the_event_and_in_no_text_of_it(
    monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    answer = SimpleNamespace(
        response_received=True,
        chosen_options=["yes"],
        params_input={"redirect_url": PASTED},
        responded_at=datetime.now(UTC),
        responded_by_user=SimpleNamespace(id="1", name="ada"),
    )
    monkeypatch.setattr(
        "airflow.providers.standard.triggers.hitl.get_hitl_detail_content_detail", lambda ti_id: answer
    )
    over = {"timeout_datetime": datetime.now(UTC) - timedelta(hours=1)} if late else {}
    path, arguments = RedirectTrigger(**{**ARGUMENTS, **over}).serialize()
    assert path == f"{RedirectTrigger.__module__}.{RedirectTrigger.__name__}"

    async def first() -> TriggerEvent:
        return await anext(RedirectTrigger(**arguments).run())

    event = asyncio.run(first())

    assert event.payload["params_input"] == {"redirect_url": PASTED}
    # As it goes to the supervisor: nothing but plain values.
    assert type(event.model_dump()["payload"]["params_input"]) is dict
    assert "sbx-unspent" not in f"{event} {event!r}"
    assert RedirectTrigger(**arguments).serialize() == (path, {**ARGUMENTS, **over})


def test_a_time_out_is_passed_on() -> None:
    over = {"timeout_datetime": datetime.now(UTC) - timedelta(hours=1)}

    async def first() -> TriggerEvent:
        return await anext(RedirectTrigger(**{**ARGUMENTS, **over}).run())

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "airflow.providers.standard.triggers.hitl.get_hitl_detail_content_detail",
            lambda ti_id: SimpleNamespace(response_received=False, chosen_options=None),
        )
        assert asyncio.run(first()).payload["error_type"] == "timeout"
