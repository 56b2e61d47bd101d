"""What the Test button of a connection checks, spending nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests

from airflow_provider_feedamp.hooks.custody import custodian_of
from airflow_provider_feedamp.tokens.models import RecordState

if TYPE_CHECKING:
    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

_TIMEOUT = 10.0


def check_connection(hook: FeedAmpHook) -> tuple[bool, str]:
    """Check fields, token store, token record and whether FeedAMP answers; no refresh token is spent.

    :param hook: The hook of the connection.
    :return: Whether nothing is wrong, and one sentence for each thing that was checked.
    :raises FeedAmpError: if the fields or the store are wrong.
    """
    config, seller = hook.config, hook.seller
    custodian = custodian_of(config, seller)
    record = custodian.record()
    ok, facts = True, [f"Fields are well-formed (base URL {config.base_url})."]
    token = None
    if record is not None:
        token = record.token()
        facts.append(
            f"The token store has seller {seller!r}: state {record.state}, generation {record.generation}"
            + (f", access token until {token.expires_at.to_iso8601_string()}." if token else ".")
        )
        ok = record.state is not RecordState.REAUTH_REQUIRED
        if not ok:
            facts.append("A person has to authorise this seller again.")
    elif custodian.seed:
        facts.append(
            f"Seller {seller!r} has a refresh token here that was not used yet; this test does not use it."
        )
    else:
        ok = False
        facts.append(f"Seller {seller!r} has no refresh token: neither here nor in the token store.")
    alive = token is not None and token.expires_at.timestamp() > custodian.now()
    answered, fact = _ask(f"{config.base_url}/orders", token.value if token and alive else None)
    return ok and answered, " ".join([*facts, fact])


def _ask(url: str, token: str | None) -> tuple[bool, str]:
    """Read one page of orders, with the present access token if there is one."""
    headers = {"Authorization": f"Bearer {token}"} if token else {"Authorization": ""}
    try:
        answer = requests.get(
            url, params={"page_size": 10}, headers=headers, timeout=_TIMEOUT, allow_redirects=False
        )
    except requests.RequestException as error:
        return False, f"FeedAMP could not be reached ({type(error).__name__})."
    if token and answer.ok:
        return True, "FeedAMP accepts the present access token."
    if token and answer.status_code == 401:
        return True, "FeedAMP refuses the present access token (401); the next task renews it."
    if not token and answer.status_code == 401:
        return True, "FeedAMP answers; Client ID and Secret are checked when the first token is obtained."
    return (
        False,
        f"FeedAMP answers {answer.status_code}, which is not what its API does: is the base URL right?",
    )
