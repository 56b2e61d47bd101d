"""The hook: one Airflow connection, one seller, an authorised client."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from airflow.providers.common.compat.sdk import AirflowFailException, BaseHook, conf, mask_secret

from airflow_provider_feedamp.exceptions import (
    ConfigurationError,
    FeedAmpError,
    InputError,
    ReauthorizationRequiredError,
    TokenRecordError,
    TokenStoreError,
    forget_variables,
    page_of,
)
from airflow_provider_feedamp.get_provider_info import get_provider_info
from airflow_provider_feedamp.hooks.connection import AIRFLOW_2_MASK, FeedAmpConnection, read_connection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import timedelta

    from airflow_provider_feedamp.api.client import FeedAmpClient, Unverified
    from airflow_provider_feedamp.api.session import FeedAmpSession
    from airflow_provider_feedamp.hooks.check import Checked
    from airflow_provider_feedamp.hooks.sellers import SellerRow
    from airflow_provider_feedamp.tokens.custodian import TokenCustodian
    from airflow_provider_feedamp.tokens.records import AccessToken
    from airflow_provider_feedamp.tokens.store import TokenStore

_SECTION = "feedamp"
#: A lease must hold two calls, the pause between them and the writes.
_LONGEST_DEADLINE = 20.0
#: What of the client's guesses the configuration replaces.
_GUESSES = ("refund_complete_path", "return_complete_path")
#: Sellers that an error about an unknown one names.
_NAMED = 20


class FeedAmpHook(BaseHook):
    """Talks to FeedAMP as one seller of one connection; access tokens are obtained and renewed inside.

    Errors that no retry can mend (a bad connection, a seller who must authorise again) are raised as
    ``AirflowFailException`` too, so Airflow does not retry the task.

    :param feedamp_conn_id: The Airflow connection, type ``feedamp``.
    :param seller: Your name for the seller's account. Default: the connection's extra ``seller``.
    :param timeout: Seconds to wait for a connection and for each answer. Default: the
        connection's, else 10 and 60.
    :param requests_per_second: Pace of the client's calls for this seller in this process. Default: the
        connection's, else unpaced.
    :param list_requests_per_second: Pace of the client's list calls for this seller in this process, 0 for
        none. Default: the connection's, else 2.
    :param pool_size: Connections that are kept open, as many as threads use the client. Default: 32.
    :param unverified: What the client guesses where FeedAMP documents nothing. Default: the two paths of the
        ``[feedamp]`` configuration, and otherwise what :class:`.Unverified` has.
    """

    conn_name_attr = "feedamp_conn_id"
    default_conn_name = "feedamp_default"
    conn_type = "feedamp"
    hook_name = "FeedAMP"

    def __init__(
        self,
        feedamp_conn_id: str = default_conn_name,
        seller: str | None = None,
        *,
        timeout: float | None = None,
        requests_per_second: float | None = None,
        list_requests_per_second: float | None = None,
        pool_size: int | None = None,
        unverified: Unverified | None = None,
    ) -> None:
        super().__init__()
        self.feedamp_conn_id = feedamp_conn_id
        self._seller = seller
        self._timeout = timeout
        self._requests_per_second = requests_per_second
        self._list_requests_per_second = list_requests_per_second
        self._pool_size = pool_size
        self._unverified = unverified

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was read and made so far: it holds secrets, and is read and made anew."""
        return {
            name: value
            for name, value in self.__dict__.items()
            if not isinstance(getattr(type(self), name, None), cached_property)
        }

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the connection form's labels (Airflow up to 3.2; later ones read the manifest)."""
        behaviour = _connection_type()["ui-field-behaviour"]
        return {name.replace("-", "_"): value for name, value in behaviour.items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the connection form's own fields (Airflow up to 3.2; later ones read the manifest)."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from wtforms import PasswordField, StringField

        return {
            name: PasswordField(field["label"], description=field["description"], widget=_kept_secret)
            if field["schema"].get("format") == "password"
            else StringField(field["label"], description=field["description"], widget=BS3TextFieldWidget())
            for name, field in _connection_type()["conn-fields"].items()
        }

    @cached_property
    def config(self) -> FeedAmpConnection:
        """Return the connection, read once and checked.

        :raises ConfigurationError: naming the field that is wrong and what to do.
        """
        with task_errors():
            return read_connection(self.feedamp_conn_id)

    @property
    def seller(self) -> str:
        """Return the seller that this hook acts for.

        :raises InputError: if the given name is empty.
        """
        if self._seller is None:
            return self.config.seller
        if not isinstance(self._seller, str) or not self._seller.strip():
            with task_errors():
                raise InputError(
                    f"seller is empty (connection {self.feedamp_conn_id!r}). Name a seller, or leave it out."
                )
        return self._seller

    def get_access_token(self, min_ttl: timedelta | None = None) -> str:
        """Return a bearer token for the seller's account; it is masked in logs.

        :param min_ttl: The least time that it must have left. Default: two minutes.
        :raises TokenError: if there is none to be had; see the classes in ``exceptions``.
        """
        cached = self._custodian.cached_token() if min_ttl is None else None
        return (cached or self.access_token(min_ttl)).value

    def access_token(self, min_ttl: timedelta | None = None) -> AccessToken:
        """Return the token with what may be known about it: seller, expires_at, generation, renewed.

        Takes the same parameter as :meth:`get_access_token`, and raises the same errors.
        """
        with task_errors():
            try:
                return self._custodian.token(min_ttl)
            except ReauthorizationRequiredError as error:
                if known := self._known_sellers():
                    raise ReauthorizationRequiredError(f"{error} {known}") from error.__cause__
                raise

    def get_conn(self) -> FeedAmpSession:
        """Return an authorised ``requests.Session``: relative URLs resolve against the base URL.

        Tokens are put in and renewed inside, a 401 is answered with one renewal and one more try.
        """
        from airflow_provider_feedamp.api.session import BearerAuth, FeedAmpSession

        timeout, pool_size = self._limits
        bearer = BearerAuth(HookTokens(self), self.config.base_url)
        return FeedAmpSession(self.config.base_url, bearer, timeout, pool_size=pool_size)

    @cached_property
    def client(self) -> FeedAmpClient:
        """Return the client for this seller's account: ``hook.client.orders.place(...)`` and so on."""
        from airflow_provider_feedamp.api.client import FeedAmpClient
        from airflow_provider_feedamp.api.http import Http, pacer_for

        account = (self.config.base_url, self.config.client_id, self.seller)
        pacer = pacer_for(account, self._requests_per_second or self.config.requests_per_second)
        listing = self._list_requests_per_second
        listing = self.config.list_requests_per_second if listing is None else listing
        timeout, pool_size = self._limits
        paces = (pacer, pacer_for((*account, "lists"), listing or None))
        http = Http(self.config.base_url, HookTokens(self), timeout, *paces, pool_size=pool_size)
        return FeedAmpClient(http, self._guesses)

    @property
    def _guesses(self) -> Unverified:
        """Return what the client guesses: as given, else with what the ``[feedamp]`` section replaces."""
        from airflow_provider_feedamp.api.client import Unverified

        if self._unverified is not None:
            return self._unverified
        values = {option: conf.get(_SECTION, option, fallback=None) for option in _GUESSES}
        return Unverified(**{option: value.strip() for option, value in values.items() if value})

    @property
    def _limits(self) -> tuple[float | tuple[float, float], int]:
        """Return the time-out in seconds and the number of connections that are kept open."""
        from airflow_provider_feedamp.api.http import DEFAULT_POOL_SIZE, DEFAULT_TIMEOUT

        timeout = self._timeout or self.config.timeout or DEFAULT_TIMEOUT
        return timeout, self._pool_size or DEFAULT_POOL_SIZE

    def sellers(self) -> list[str]:
        """Return the names of all sellers of the connection's client, to map tasks over.

        They are those with a record in the token store, and the one that the connection holds a refresh token
        for. A seller who has to authorise again is among them: only that seller's task fails.

        :raises TokenStoreError: if the store cannot be reached, or cannot list from where this runs.
        """
        with task_errors():
            custodian = custodian_of(self.config, self.config.seller)
            key = custodian.key
            sellers = {each.seller for each in custodian.store.keys(key.token_url, key.client_id)}
        return sorted(sellers | ({key.seller} if custodian.seed else set()))

    def seller_states(self, sellers: Iterable[str] | None = None) -> list[SellerRow]:
        """Return what is known of each seller, in rows that hold no token.

        :param sellers: Whose rows. Default: all of :meth:`sellers`.
        :raises TokenStoreError: if the store cannot be reached, or cannot list from where this runs.
        """
        from airflow_provider_feedamp.hooks.sellers import seller_rows

        with task_errors():
            chosen = None if sellers is None else [custodian_of(self.config, name) for name in sellers]
            return seller_rows(custodian_of(self.config, self.config.seller), chosen)

    def seller_warning(
        self, within_days: int = 30, sellers: Iterable[str] | None = None, link: str = ""
    ) -> str:
        """Return a text for a person: which sellers need one, why, and what to do; empty if none does.

        It holds no token, and is fit for any notifier of Airflow.

        :param within_days: A refresh token whose year ends within so many days is named, too. Default: 30.
        :param sellers: Who is looked at. Default: all of :meth:`sellers`.
        :param link: Where the reader can go on, such as the page of your Airflow. Default: none.
        :raises TokenStoreError: as :meth:`seller_states` does.
        """
        rows, conn_id = self.seller_states(sellers), self.feedamp_conn_id
        lines = [f"- {row.seller!r} {problem}" for row in rows if (problem := row.problem(within_days))]
        if not lines:
            return ""
        head = f"{len(lines)} of {len(rows)} FeedAMP sellers of connection {conn_id!r} need a person:"
        mend = (
            f"To have a seller authorise: `feedamp sellers authorize SELLER --conn-id {conn_id}`, or a task "
            "with FeedAmpAuthorizeSellerOperator. To renew: `feedamp sellers refresh SELLER`."
        )
        return "\n".join([head, *lines, mend, *([link] if link else [])])

    def forget(self, *, force: bool = False) -> bool:
        """Remove the seller's tokens and known order from the store; the seller has to authorise again.

        :param force: Remove them also when they cannot be read from here; others may well read them. Default:
            False.
        :return: Whether there were any.
        :raises TokenStoreError: if the store fails; nothing was removed.
        """
        from airflow_provider_feedamp.hooks.sellers import locked
        from airflow_provider_feedamp.tokens.custodian import known_order_key

        with task_errors():
            store, key = self._custodian.store, self._custodian.key
            try:
                if store.read(key) is None:
                    return False
                # A renewal under way would write its record after all.
                with locked(self._custodian):
                    store.delete(key)
            except TokenStoreError as error:
                # A record that no worker can use is removed.
                if not force and not isinstance(error, TokenRecordError):
                    raise
                store.delete(key)
            store.delete(known_order_key(key))
            return True

    def days_left(self) -> float | None:
        """Return the days that the seller's refresh token has left of its year; below 0 after it.

        It reads the token store and spends nothing.

        :return: None if the store has no refresh token.
        :raises TokenStoreError: if the store cannot be reached.
        """
        with task_errors():
            record = self._custodian.record()
        return record.days_left(self._custodian.now()) if record else None

    def authorize_url(self, redirect_url: str, state: str) -> str:
        """Return the URL to open in the seller's browser, to have the marketplace authorised.

        The browser comes back to ``{redirect_url}?code=...&state=...`` (API page "OAuth").

        :param redirect_url: Where FeedAMP sends the browser back to, a full URL.
        :param state: A text that nobody can guess, new for each call; compare it when the browser is back.
        :raises InputError: if either cannot work.
        """
        back = urlsplit(redirect_url)
        with task_errors():
            if back.scheme not in ("https", "http") or not back.netloc:
                raise InputError(
                    "redirect_url must be a full URL (https://...): FeedAMP sends the seller's browser there."
                )
            if not state:
                raise InputError(
                    "state is empty. Pass a new random text (secrets.token_urlsafe()) and compare it "
                    "afterwards."
                )
        query = {
            "response_type": "code",
            "client_id": self.config.client_id,
            "state": state,
            "redirect_url": redirect_url,
        }
        return f"{self.config.base_url}/authorize?{urlencode(query)}"

    def exchange_code(self, code: str, redirect_url: str | None = None) -> None:
        """Exchange the code that the browser brought back, and store the seller's tokens.

        :param code: The code; it works once.
        :param redirect_url: The URL that :meth:`authorize_url` had, for a server that asks for it again (RFC
            6749, 4.1.3). Default: not sent, as FeedAMP shows it.
        :raises CodeRefusedError: if FeedAMP does not take it.
        """
        with task_errors():
            if not code or not code.strip():
                raise InputError(
                    "code is empty. Pass the value of `code` out of the URL that the browser came back to."
                )
            self._custodian.exchange_code(code.strip(), redirect_url)

    def note_order(self, mp_order_number: str | None) -> None:
        """Note an order that is in the seller's account, to know the account by when it is authorised anew.

        The first one stays. It never fails: what is not noted now is noted after the next import.

        :param mp_order_number: Its number; None notes nothing.
        """
        from airflow_provider_feedamp.tokens.cache import CACHE
        from airflow_provider_feedamp.tokens.custodian import known_order, note_order

        if mp_order_number is None:
            return
        try:
            store, key = self._custodian.store, self._custodian.key
            if known_order(store, key) is not None:
                return
            held, record = CACHE.slot(key).token, store.read(key)
            # With another token in the store, another account may be the seller's by now.
            if held is None or record is None or held.value == record.access_token:
                note_order(store, key, mp_order_number)
        except FeedAmpError as error:
            self.log.debug("No order of seller %r was noted: %s", self.seller, error)

    def test_connection(self) -> tuple[bool, str]:
        """Check the connection without spending a refresh token, and say what was checked.

        :return: Whether nothing is wrong, and what is known.
        """
        from airflow_provider_feedamp.hooks.check import check_connection

        try:
            return check_connection(custodian_of(self.config, self.seller), self.config.base_url)
        except FeedAmpError as error:
            # Airflow tests the fields of its form under an id that it makes up; no reader knows that id.
            return False, str(error).replace(
                f"The Airflow connection {self.feedamp_conn_id!r}", "The connection"
            )

    def check(self) -> Checked:
        """Check connection, token store, all sellers, FeedAMP's answer and what the client guesses.

        No refresh token is spent, and nothing is changed at FeedAMP.

        :return: All that was found; its ``ok`` says whether nothing is wrong.
        """
        from airflow_provider_feedamp.hooks.check import Checked, Finding, check_all

        try:
            config = self.config
            own = custodian_of(config, config.seller)
        except FeedAmpError as error:
            return Checked(self.feedamp_conn_id, (Finding("connection", ok=False, text=str(error)),))
        return check_all(own, self._seller, config, self._guesses)

    def _known_sellers(self) -> str:
        """Return who is known, the most alike first, if the seller is not: the name may be misspelt."""
        if self._custodian.seed:
            return ""
        try:
            if self._custodian.record() is not None:
                return ""
            known = self.sellers()
        except TokenStoreError:  # It cannot list from everywhere, and this error is about something else.
            return ""
        alike = get_close_matches(self.seller, known, n=_NAMED, cutoff=0.0)
        more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
        return f"Known to this connection are: {', '.join(map(repr, alike))}{more}." if known else ""

    @cached_property
    def _custodian(self) -> TokenCustodian:
        with task_errors():
            return custodian_of(self.config, self.seller)


@dataclass(frozen=True, slots=True)
class HookTokens:
    """A hook's tokens, as the order API's client asks for them (``api.types.TokenSource``)."""

    hook: FeedAmpHook

    def token(self) -> str:
        """Return an access token that can be used now."""
        return self.hook.get_access_token()

    def replace(self, refused: str) -> str:
        """Return the token to use instead of one that FeedAMP refused."""
        with task_errors():
            return self.hook._custodian.replace(refused).value

    def accepted(self, token: str) -> None:
        """Take note that FeedAMP has accepted a token."""
        self.hook._custodian.accepted(token)


def _kept_secret(field: Any, **attributes: Any) -> Any:
    """Render a stored secret as Airflow 2's own sign for "unchanged": saved empty, it would be deleted."""
    from wtforms.widgets import PasswordInput

    # What a person has just typed is not shown again, and must not turn into the stored secret either.
    stored = field.data and (not field.raw_data or field.data == AIRFLOW_2_MASK)
    value = AIRFLOW_2_MASK if stored else ""
    return PasswordInput(hide_value=False)(field, **{**attributes, "class": "form-control", "value": value})


def _connection_type() -> dict[str, Any]:
    (connection_type,) = get_provider_info()["connection-types"]
    return dict(connection_type)


def custodian_of(connection: FeedAmpConnection, seller: str) -> TokenCustodian:
    """Return the custodian of a seller's tokens.

    :param connection: The connection that the client, and perhaps the seller's refresh token, come from.
    :param seller: Your name for the seller.
    :raises ConfigurationError: if the ``[feedamp]`` configuration cannot be used.
    """
    from airflow_provider_feedamp.tokens.cache import Windows
    from airflow_provider_feedamp.tokens.custodian import TokenCustodian
    from airflow_provider_feedamp.tokens.endpoint import TokenEndpoint
    from airflow_provider_feedamp.tokens.records import TokenKey

    for secret in (connection.client_secret, connection.refresh_token):
        if secret:
            mask_secret(secret)
    return TokenCustodian(
        key=TokenKey(connection.token_url, connection.client_id, seller),
        endpoint=TokenEndpoint(
            url=connection.token_url,
            client_id=connection.client_id,
            client_secret=connection.client_secret,
            encoding=connection.request_encoding,
            deadline=_seconds("token_deadline", 15.0, at_most=_LONGEST_DEADLINE),
            connection=f"the Airflow connection {connection.conn_id!r}",
        ),
        store=token_store(),
        # The connection's refresh token belongs to the seller that the connection names, and to nobody else.
        seed=connection.refresh_token if seller == connection.seller else None,
        windows=Windows(
            advisory=_seconds("advisory_window", 600.0),
            jitter=_seconds("advisory_jitter", 120.0),
            mandatory=_seconds("mandatory_window", 120.0),
        ),
        lock_wait=_seconds("lock_wait", 90.0),
        on_secret=mask_secret,
        on_event=partial(_count, connection.conn_id, seller),
    )


def token_store() -> TokenStore:
    """Return the token store of this deployment.

    :raises ConfigurationError: if the ``[feedamp]`` configuration names none.
    """
    from airflow_provider_feedamp.tokens.store import open_store

    return open_store(
        conf.get(_SECTION, "token_store", fallback=None) or "variable",
        conf.get(_SECTION, "token_store_conn_id", fallback=None) or None,
    )


def _count(connection: str, seller: str, event: str, outcome: str) -> None:
    """Add to a counter of Airflow's metrics what became of a renewal."""
    from airflow.providers.common.compat.sdk import Stats

    tags = {"connection": connection, "seller": seller, "outcome": outcome}
    with suppress(Exception):  # no metric is worth a token
        Stats.incr(f"feedamp.tokens.{event}", tags=tags)


def _seconds(option: str, default: float, *, at_most: float = 86400.0) -> float:
    value = conf.get(_SECTION, option, fallback=None)
    if value is None or value == "":
        return default
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= at_most:
        raise ConfigurationError(
            f"The Airflow configuration [{_SECTION}] {option} must be a number of seconds from 0 to "
            f"{at_most:.0f}."
        )
    return seconds


def as_task_error(error: FeedAmpError) -> FeedAmpError:
    """Return the error as one that Airflow does not retry, if trying again cannot help.

    :param error: Any error of this provider.
    :return: The error itself if it is retryable; else one of its class, with the same data, that is an
        ``AirflowFailException`` as well, so that ``except`` clauses for either see it.
    """
    final = _final_class(type(error))  # type: ignore[arg-type]  # a class is hashable
    if error.retryable or type(error) is final:
        return error
    task_error = final(*error.args)
    task_error.__dict__.update(error.__dict__)
    task_error.__cause__ = error.__cause__
    return task_error.with_traceback(error.__traceback__)


@contextmanager
def task_errors() -> Iterator[None]:
    """Raise this provider's errors as :func:`as_task_error` returns them.

    Of the chain behind one, only its beginning is shown, with the place where it was raised: requests and
    urllib3 alone would add three tracebacks that say the same. A note under the error names its place in the
    documentation.
    """
    try:
        yield
    except FeedAmpError as error:
        forget_variables(error)
        error.__cause__ = _beginning(error)
        if not hasattr(error, "__notes__"):  # it may pass through here more than once
            error.add_note(f"What it means and what to do: {page_of(error)}")
        task_error = as_task_error(error)
        if task_error is error:
            raise
        raise task_error from error.__cause__


def _beginning(error: BaseException) -> BaseException | None:
    """Return what an error began with, None if it stands alone."""
    first = error
    while before := first.__cause__ or (None if first.__suppress_context__ else first.__context__):
        first = before
    if first is error:
        return None
    place = first.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return first.with_traceback(place)


@cache
def _final_class(kind: type[FeedAmpError]) -> type[FeedAmpError]:
    if issubclass(kind, AirflowFailException):
        return kind
    # api/ and tokens/ raise plain errors and know no Airflow; here each class gets its Airflow twin.
    namespace = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind, AirflowFailException), namespace)
