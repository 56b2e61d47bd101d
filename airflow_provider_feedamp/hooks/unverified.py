"""What the client guesses, as Airflow's configuration has it."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import conf

from airflow_provider_feedamp.api.client import Unverified

_OPTIONS = ("refund_complete_path", "return_complete_path")


def configured() -> Unverified:
    """Return the guesses, with those that the ``[feedamp]`` section replaces."""
    values = {option: conf.get("feedamp", option, fallback=None) for option in _OPTIONS}
    return Unverified(**{option: value.strip() for option, value in values.items() if value})
