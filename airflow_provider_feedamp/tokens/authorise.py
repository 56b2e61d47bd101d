"""Turns an authorisation code into a seller's first (or next) token pair."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from airflow_provider_feedamp.exceptions import CodeRefusedError
from airflow_provider_feedamp.tokens.exchange import AnswerLostError, GrantRefusedError
from airflow_provider_feedamp.tokens.models import RecordState, TokenRecord

if TYPE_CHECKING:
    from airflow_provider_feedamp.stores.base import Lease
    from airflow_provider_feedamp.tokens.models import AccessToken
    from airflow_provider_feedamp.tokens.spend import Spender


def exchange_code(spender: Spender, code: str, redirect_url: str | None, lease: Lease) -> AccessToken:
    """Exchange a code as a refresh token is spent: the store is proved first, the answer stored before use.

    :param spender: The parts to do it with.
    :param code: The code from the redirect; it works once.
    :param redirect_url: Sent along when given (RFC 6749 section 4.1.3); FeedAMP's pages show none.
    :raises CodeRefusedError: if FeedAMP did not give a token pair for it.
    """
    key = spender.key
    before = spender.store.read(key)
    known = before.seeds if before else ()
    if spender.seed and key.fingerprint(spender.seed) not in known:
        # The seller's new authorisation is younger than what the connection holds.
        known = (*known, key.fingerprint(spender.seed))
    proof = before or TokenRecord(
        key=key,
        refresh_token="",
        state=RecordState.REAUTH_REQUIRED,
        reason="its authorisation was begun and not finished",
    )
    with spender.shield.section():
        proved = spender.store.write(proof, expected=before.revision if before else None)
        try:
            sent_at, grant = spender.ask(lambda: spender.endpoint.exchange_code(code, redirect_url), lease)
        except (GrantRefusedError, AnswerLostError) as error:
            raise CodeRefusedError(
                f"FeedAMP did not exchange the authorisation code for seller {key.seller!r}: {error} A code "
                "works once and for a short time: open the authorisation URL again and use the new code at "
                "once.",
                status=error.status,
                codes=error.codes,
                request_id=error.request_id,
            ) from error
        new = proved.changed(seeds=known, family=secrets.token_hex(8))
        return spender.saver.renewed(new, grant, sent_at, lease, replaces=proved.family)
