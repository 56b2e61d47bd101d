"""Authorising a seller, step by step: the consent page, its redirect, the right account, the tokens stored.

The command, the task and the page do it in this one way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pendulum

from airflow_provider_feedamp.exceptions import (
    ApiError,
    FeedAmpError,
    InputError,
    NotFoundError,
    RedirectRefusedError,
    TokenStoreError,
)
from airflow_provider_feedamp.hooks.check import client_with
from airflow_provider_feedamp.hooks.feedamp import token_store
from airflow_provider_feedamp.tokens.custodian import known_order, note_order
from airflow_provider_feedamp.tokens.pending import PendingAuthorisation, whose

if TYPE_CHECKING:
    from airflow_provider_feedamp.api.client import FeedAmpClient
    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
    from airflow_provider_feedamp.tokens.records import TokenRecord

#: Orders that a person is shown of an account.
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Started:
    """An authorisation that waits for the seller to agree.

    :param url: FeedAMP's consent page, to be opened in the seller's browser.
    :param state: Comes back in the redirect URL; it names this authorisation.
    :param expires_at: Until when the redirect may come (UTC).
    """

    url: str
    state: str
    expires_at: pendulum.DateTime


@dataclass(frozen=True, slots=True)
class Found:
    """What FeedAMP gave tokens for.

    :param state: The authorisation that the redirect belongs to: it is what :meth:`Authorisation.confirm` and
        :meth:`Authorisation.discard` take. A person may have pasted the redirect of an earlier one.
    :param account: ``known``: the account has the seller's known order. ``other``: it has not. ``new``: no
        order of the seller is known, and the account has orders. ``empty``: none is known, and it has none.
        ``unchecked``: FeedAMP, or the token store, could not be asked.
    :param order_numbers: A few orders of the account.
    :param known_order: The order that the seller is known by, if there is one.
    :param confirmed: Whether the tokens are stored as the seller's.
    :param question: What a person has to answer before they are; None when they are.
    :param description: What the token operator returns of a seller; None until the tokens are stored.
    """

    account: str
    order_numbers: tuple[str, ...] = ()
    known_order: str | None = None
    state: str = ""
    confirmed: bool = False
    question: str | None = None
    description: dict[str, Any] | None = None


class Authorisation:
    """The authorisation of one seller by one person.

    Steps may run in different processes: what they share is in the token store.

    :param hook: Has the connection and the seller.
    :param by: Who asks: a user's name, a task's key, or ``command``. Only the same one can go on.
    """

    def __init__(self, hook: FeedAmpHook, by: str) -> None:
        self.hook = hook
        self.by = by

    @staticmethod
    def whose(state: str) -> tuple[str, str]:
        """Return the connection id and the seller of the authorisation that a state came from.

        It says whom to ask next, and does not say that the state is good: :meth:`redeem` does.

        :raises RedirectRefusedError: if there is no such authorisation.
        :raises TokenStoreError: if the store cannot be read.
        """
        return whose(token_store(), state)

    def start(self, redirect_url: str, seconds: float = 600) -> Started:
        """Begin, and return where the seller has to agree.

        :param redirect_url: Where FeedAMP sends the browser back to, a full URL.
        :param seconds: How long the redirect may take, and after it the answer to a question. Default: 600.
        :raises InputError: if the redirect URL cannot work.
        :raises TokenStoreError: if the token store cannot be read or written.
        """
        self.hook.authorize_url(redirect_url, "checked first")
        self._learn_known_order()
        state, until = self._pending.start(seconds)
        url = self.hook.authorize_url(redirect_url, state)
        return Started(url, state, pendulum.from_timestamp(until))

    def redeem(self, redirect: Mapping[str, str] | str, sent_redirect_url: str | None = None) -> Found:
        """Exchange the code of a redirect, and look whose account the new tokens open.

        The tokens are stored as the seller's at once if the account has the seller's known order. Else they
        wait, and a person has to :meth:`confirm` or :meth:`discard` them.

        :param redirect: The URL that the browser came back to, its query, or its parameters.
        :param sent_redirect_url: The redirect URL of :meth:`start`, for a server that asks for it again.
            Default: it is not sent, as FeedAMP shows it.
        :raises InputError: if it is no redirect URL.
        :raises RedirectRefusedError: if it is another's, too old, used before, or access was declined.
        :raises CodeRefusedError: if FeedAMP gave no tokens for the code.
        :raises NotProcessedError: if FeedAMP is away; the same redirect may come again.
        :raises TokenStoreError: if the token store fails.
        """
        query = redirect_query(redirect)
        if query is None:
            raise InputError(
                "That is not the URL which the browser came back to. Copy it whole from the address bar: it "
                "has code and state in it."
            )
        state = query["state"]
        self._pending.check(state)
        if "code" not in query:
            named = re.fullmatch(r"[a-zA-Z_]{1,64}", query["error"])
            reason = named[0] if named else "no reason that can be shown"
            raise RedirectRefusedError(
                f"FeedAMP sent the browser back without a code ({reason}): access was declined."
            )
        token = self._pending.redeem(state, query["code"], sent_redirect_url)
        found = replace(self._look(token.value if token else None), state=state)
        if found.account != "known":
            return found
        try:
            description = describe(self._pending.confirm(state, same_account=True))
        except RedirectRefusedError:
            raise  # trying again would not help
        except FeedAmpError as error:
            question = f"It is the right account, and its tokens could not be stored yet: {error} Try again?"
            return replace(found, question=question)
        return replace(found, confirmed=True, description=description)

    def confirm(self, state: str) -> dict[str, Any]:
        """Put the new tokens in the place of the seller's, and return what the token operator returns.

        :raises RedirectRefusedError: if no tokens wait for that.
        :raises TokenStoreError: if the token store fails; they still wait.
        """
        record = self._pending.confirm(state)
        if record.access_token:
            with suppress(FeedAmpError):
                self._note_order(record.access_token)
        return describe(record)

    def discard(self, state: str, *, again: bool = False) -> None:
        """Drop the new tokens: the seller's own stay as they are.

        :param again: Whether the same consent page may bring others within its time. Default: False.
        :raises RedirectRefusedError: if the state is not of this seller, connection and person.
        :raises TokenStoreError: if the token store fails.
        """
        self._pending.discard(state, again=again)

    @property
    def _pending(self) -> PendingAuthorisation:
        return PendingAuthorisation(self.hook._custodian, self.hook.feedamp_conn_id, self.by)

    def _learn_known_order(self) -> None:
        """Note an order of the account that the seller has now, while its access token still works."""
        custodian = self.hook._custodian
        record = custodian.record()
        if record is None or not record.access_token or record.expires_at <= custodian.now():
            return
        with suppress(FeedAmpError):
            if known_order(custodian.store, custodian.key) is None:
                self._note_order(record.access_token)

    def _note_order(self, access_token: str) -> None:
        custodian = self.hook._custodian
        for number in _orders(client_with(access_token, self.hook.config.base_url), 1):
            record = custodian.record()
            # To ask took its time: an account that was replaced meanwhile must never vouch for itself.
            if record is not None and record.access_token == access_token:
                note_order(custodian.store, custodian.key, number)

    def _look(self, access_token: str | None) -> Found:
        """Return whose account it seems to be; nothing is stored or confirmed."""
        known, why = None, "its answer had no access token"
        try:
            known = known_order(self.hook._custodian.store, self.hook._custodian.key)
            if access_token is not None:
                return self._compared(client_with(access_token, self.hook.config.base_url), known)
        except (ApiError, TokenStoreError) as error:
            why = str(error)
        return Found(
            "unchecked",
            known_order=known,
            question=f"FeedAMP has given new tokens for seller {self.hook.seller!r}, and whose account they "
            f"open could not be checked: {why} Store them all the same?",
        )

    def _compared(self, client: FeedAmpClient, known: str | None) -> Found:
        seller = self.hook.seller
        if known is not None:
            try:
                client.orders.get(known)
            except NotFoundError:
                pass
            else:
                return Found("known", known_order=known)
        numbers = tuple(_orders(client, _SHOWN))
        named = ("order " if len(numbers) == 1 else "the orders ") + ", ".join(map(repr, numbers))
        has = f"It has {named}." if numbers else "It has no orders at all."
        if known is not None:
            return Found(
                "other",
                numbers,
                known,
                question=f"The account that has agreed does not have order {known!r}, by which seller "
                f"{seller!r} is known. {has} Is it the right account all the same?",
            )
        return Found(
            "new" if numbers else "empty",
            numbers,
            question=f"No order of seller {seller!r} is known to tell the account by. {has} Is this the "
            f"account of seller {seller!r}?",
        )


def describe(record: TokenRecord) -> dict[str, Any]:
    """Return what the token operator returns of a seller: nothing of it is secret.

    :param record: The seller's record after an authorisation.
    """
    return {
        "seller": record.key.seller,
        "expires_at": pendulum.from_timestamp(record.expires_at).to_iso8601_string(),
        "renewed": True,
        "generation": record.generation,
    }


def redirect_query(redirect: Mapping[str, str] | str) -> dict[str, str] | None:
    """Return ``code``, ``error`` and ``state`` of a redirect URL, its query or its parameters.

    :return: None if it is no redirect.
    """
    if isinstance(redirect, Mapping):
        fields = {name: [str(value)] for name, value in redirect.items()}
    else:
        text = redirect.strip()
        try:
            fields = parse_qs(urlsplit(text).query or text.lstrip("?"), max_num_fields=20)
        except ValueError:
            return None
    found = {name: fields[name] for name in ("code", "error", "state") if name in fields}
    if "state" not in found or len(found) < 2 or any(len(values) > 1 for values in found.values()):
        return None
    return {name: values[0] for name, values in found.items()}


def _orders(client: FeedAmpClient, most: int) -> list[str]:
    # What is not as it should be must not end this: the code is spent, and a person has to be asked.
    numbers = (order.get("mp_order_number") for order in islice(client.orders.list(page_size=10), 10))
    return list(islice((number for number in numbers if isinstance(number, str)), most))
