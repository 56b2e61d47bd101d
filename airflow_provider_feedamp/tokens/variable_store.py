"""Token records in Airflow Variables: for every deployment, with nothing to install.

Who may spend is decided by a timed lease, :mod:`airflow_provider_feedamp.tokens.timed_lease`.

*Why None is not believed.* Airflow gives None for a Variable that cannot be read. Where it can be proved that
there is none, :class:`AirflowVariables` does so. A task of Airflow 3.0 to 3.2 cannot; there a lease says
whether a record was seen, a canary Variable must be readable whenever something else reads as None, and what
read as None is read once more after it. What remains there is an API server that lacks the Fernet key: it
reads back the canary that it writes itself.

What remains: a *record* write that lands after its lease has run out could overwrite a newer record. The
writer looks before and reads back after; who needs more than that uses a SQL store.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.exceptions import (
    ConfigurationError,
    FeedAmpError,
    TokenConflictError,
    TokenRecordError,
    TokenStoreError,
)
from airflow_provider_feedamp.tokens.crypto import Sealer
from airflow_provider_feedamp.tokens.records import TokenKey, TokenRecord
from airflow_provider_feedamp.tokens.store import SUPERVISOR
from airflow_provider_feedamp.tokens.timed_lease import LeaseSeeker, Look, Register, Timing

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from airflow_provider_feedamp.tokens.store import Enough, Lease


log = logging.getLogger(__name__)

#: What a record's Variable is called before its key's digest; "token" makes Airflow mask the value.
_RECORDS = "feedamp_token_"
#: Says that this deployment's Variables can be read: nothing of ours may be taken for absent while it cannot.
_CANARY = "feedamp_canary"
#: How a Fernet token begins, which JSON never does.
_FERNET = "gAAAA"
#: Comes between a key's digest and its seller in a Variable's name.
_SEPARATOR = "."
#: Sellers whose names are written as they are: no letter that differs from another one by its case alone.
_PLAIN = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
#: The longest name that Airflow takes has 250 characters; a longer seller's name is left out.
_LONGEST = 250


class VariableStore:
    """Keeps each record in one Airflow Variable, which Airflow encrypts with the deployment's Fernet key.

    With ``[feedamp] encryption_key`` the record is encrypted before it leaves this process.

    :param conn_id: Not used; Variables need no connection.
    :param timing: The lease's times; the same for all workers. Default: the ``[feedamp]`` configuration's.
    :param variables: Where the Variables are. Default: Airflow's own.
    :param clock: This machine's monotonic clock.
    :param sleep: Waits while a lease settles.
    """

    guarantee = (
        "The lock holds between all workers of the deployment, however slowly Variables answer; the "
        "conditional write is checked under the lock and read back."
    )

    def __init__(
        self,
        conn_id: str | None = None,
        *,
        timing: Timing | None = None,
        variables: AirflowVariables | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._timing = timing or Timing.configured()
        self._variables = variables or AirflowVariables()
        self._sealer = Sealer.configured()
        self._clock = clock
        self._sleep = sleep

    # Records

    def read(self, key: TokenKey) -> TokenRecord | None:
        """Return the record, or None when there is none; what cannot be read is an error."""
        name = _record_name(key)
        text, lease = self._get(name), _lease_name(key)
        if text is not None:
            return self._opened(text, key)
        if not self._variables.proves_absence and Look(self._get(lease), None).lease.get("record"):
            raise TokenStoreError(
                f"{unreadable(name)} (The lease beside it says that there was a record. If a person has "
                f"removed it, remove {lease!r} too.)"
            )
        return None

    def write(self, record: TokenRecord, *, expected: int | None) -> TokenRecord:
        """Look, replace the record, and read it back: writes can be refused or shadowed without an error."""
        key = record.key
        self._check_secrecy()
        stored = self.read(key)
        if (stored.revision if stored else None) != expected:
            raise TokenConflictError(f"The token record of seller {key.seller!r} has changed meanwhile.")
        written = record.changed(revision=(expected or 0) + 1)
        name = _record_name(key)
        text = written.to_json()
        self._variables.set(name, self._sealer.seal(text) if self._sealer.own else text, _described(key))
        if self.read(key) != written:
            raise TokenStoreError(
                f"Airflow Variable {name!r} (of seller {key.seller!r}) was written and reads back as "
                "something else. Either the write was refused (may this task write Variables?), or a "
                "secrets backend defines the same Variable and shadows it (remove it there), or with [core] "
                "multi_team the Variable belongs to another team than this task (use the token store 'sql')."
            )
        return written

    def delete(self, key: TokenKey) -> None:
        """Forget the record and its lease, readable or not."""
        for name in (_record_name(key), _lease_name(key)):
            try:
                there = self._variables.get(name) is not None
            except TokenStoreError:
                there = True
            if there:
                self._variables.delete(name)

    def keys(self, token_url: str, client_id: str) -> list[TokenKey]:
        """Return the keys of all records of a client.

        In a task this needs Airflow 3.3; elsewhere it asks the metadata database. The names of the Variables
        say whose they are, so no value is read, save for sellers with very long names.
        """
        found = []
        for name in self._variables.names(_RECORDS):
            key = _key(name, token_url, client_id)
            if key is None and _SEPARATOR not in name:
                key = self._key_within(name)
            if key is not None and (key.token_url, key.client_id) == (token_url, client_id):
                found.append(key)
        return found

    def records(
        self, token_url: str, client_id: str
    ) -> Iterator[tuple[TokenKey, TokenRecord | TokenStoreError | None]]:
        """Yield the keys of all records of a client with the records, as ``records_of`` describes it."""
        values = self._variables.values(_RECORDS)
        for key in self.keys(token_url, client_id):
            name = _record_name(key)
            if name not in values:
                continue
            text = values[name]
            try:
                yield key, TokenStoreError(unreadable(name)) if text is None else self._opened(text, key)
            except TokenStoreError as error:
                yield key, error

    def _get(self, name: str) -> str | None:
        """Return a Variable's value; None only when it can be relied on that there is none.

        :raises TokenStoreError: if it cannot.
        """
        text = self._variables.get(name)
        if text is not None or self._variables.proves_absence:
            return text
        if self._variables.get(_CANARY) is None:
            about = "Lets airflow-provider-feedamp see that Variables can be read. Leave it here."
            self._variables.set(_CANARY, "readable", about)
            if self._variables.get(_CANARY) is None:
                raise TokenStoreError(unreadable(_CANARY))
        return self._variables.get(name)

    def _opened(self, text: str, key: TokenKey) -> TokenRecord:
        name, sealed_with = _record_name(key), ""
        if text.startswith(_FERNET):
            text, sealed_with = self._sealer.open(text, key)
        try:
            return TokenRecord.from_json(text, key).changed(sealed_with=sealed_with)
        except TokenRecordError as error:
            raise TokenRecordError(
                f"{error} It is Airflow Variable {name!r}, or what a secrets backend puts in its place."
            ) from None

    def _key_within(self, name: str) -> TokenKey | None:
        """Return whose record a Variable holds that does not say so in its name."""
        try:
            text = self._variables.get(name) or ""
            text = self._sealer.open(text, TokenKey("", "", name))[0] if text.startswith(_FERNET) else text
            key = TokenKey(**json.loads(text)["key"])
        except (ValueError, TypeError, KeyError, TokenStoreError):
            key = None
        if key is None or _record_name(key) != name:
            log.warning("Airflow Variable %r holds no token record that can be read.", name)
            return None
        return key

    def _check_secrecy(self) -> None:
        if self._variables.logs_values and not self._sealer.own:
            raise ConfigurationError(
                "Airflow 3.0 writes each Variable that a task sets into the scheduler's log, in clear. So "
                "the token store 'variable' needs [feedamp] encryption_key there (`feedamp keygen` makes "
                "one; set AIRFLOW__FEEDAMP__ENCRYPTION_KEY to the same key wherever Airflow runs). Or use "
                "the token store 'sql', or a later Airflow. Nothing was spent."
            )

    # The lease

    @contextmanager
    def lock(
        self, key: TokenKey, *, wait: float, stop: threading.Event, enough: Enough | None = None
    ) -> Iterator[Lease]:
        """Hold the key's timed lease; the module's text says why no two workers do."""
        self._check_secrecy()
        name = _lease_name(key)
        register = Register(
            # The lease first: a record that was read earlier could not know of a later lease's end.
            look=lambda: Look(self._get(name), self.read(key)),
            lease=lambda: self._get(name),
            write=lambda text: self._variables.set(name, text, f"Who renews: {_described(key)}"),
            release=lambda lease: self._release(key, lease),
            clock=self._clock,
            sleep=self._sleep,
        )
        lease = LeaseSeeker(key, self._timing, register).take(wait, stop, enough)
        try:
            yield lease
        finally:
            self._release(key, lease)

    def _release(self, key: TokenKey, lease: Lease) -> None:
        """Make sure that the record names the lease as released; a spend's last write has done so already."""
        if lease.left() < self._timing.settle:
            return
        try:
            record = self.read(key)
            if record is not None and record.released != lease.nonce:
                self.write(record.changed(released=lease.nonce), expected=record.revision)
        except FeedAmpError as error:
            text = "The lease for seller %r was not released; it ends in %.0f s. %s"
            log.warning(text, key.seller, self._timing.ttl, error)


def _record_name(key: TokenKey) -> str:
    """Return the name of a record's Variable: its key's digest, and the seller for people and for listing."""
    name = f"{_RECORDS}{key.digest}"
    seller = key.seller
    if not _PLAIN.fullmatch(seller):
        coded = base64.b32encode(seller.encode(errors="surrogatepass")).decode()
        seller = f"={coded.rstrip('=').lower()}"
    named = f"{name}{_SEPARATOR}{seller}"
    return named if len(named) <= _LONGEST else name


def _key(name: str, token_url: str, client_id: str) -> TokenKey | None:
    """Return the key of a record by its Variable's name, if it is of this client."""
    _, _, seller = name.partition(_SEPARATOR)
    if seller.startswith("="):
        coded = seller[1:].upper()
        try:
            seller = base64.b32decode(coded + "=" * (-len(coded) % 8)).decode(errors="surrogatepass")
        except ValueError:
            return None
    key = TokenKey(token_url, client_id, seller)
    return key if seller and _record_name(key) == name else None


def _lease_name(key: TokenKey) -> str:
    return f"feedamp_lease_{key.digest}"


def _described(key: TokenKey) -> str:
    """Return what Airflow's page of Variables shows beside a Variable of ours."""
    return (
        f"FeedAMP tokens of seller {key.seller[:100]!r}, client {key.client_id[:100]!r}. Belongs to "
        "airflow-provider-feedamp: do not edit; `feedamp sellers forget` removes it."
    )


class AirflowVariables:
    """Airflow's Variables, wherever this code runs, with errors that name the Variable and no value.

    Airflow answers None for a Variable that is not there, and also for one that it cannot decrypt, whose
    database fails, or whose API server answers with an error.
    """

    @property
    def proves_absence(self) -> bool:
        """Whether None from :meth:`get` is proof that there is no such Variable.

        Beside the metadata database the row proves it, in a task of Airflow 3.3 the listing of names. In a
        task of Airflow 3.0 to 3.2 nothing does, nor with teams: the listing leaves out rows without a team.
        """
        if not _in_task():
            return True
        from airflow.providers.common.compat.sdk import conf

        return hasattr(_variables(), "keys") and not conf.getboolean("core", "multi_team", fallback=False)

    @property
    def logs_values(self) -> bool:
        """Whether what is written from here comes into Airflow's log in clear, at the default level.

        The supervisor of Airflow 3.0 logs each request of a task; later ones do so at DEBUG only.
        """
        from airflow import __version__

        return _in_task() and __version__.startswith("3.0.")

    def get(self, name: str) -> str | None:
        """Return the value, or None when there is none; see :attr:`proves_absence`.

        :raises TokenStoreError: if there is one that cannot be read, or it cannot be told.
        """

        def get(variables: Any) -> Any:
            try:
                return variables.get(name, None)
            except KeyError:
                return None  # how some releases say that there is no such Variable

        value = self._call(name, "read", get)
        if value is None and self.proves_absence and name in self.names(name):
            # It is there: either it was written between the two questions, or it cannot be read.
            value = self._call(name, "read", get)
            if value is None:
                raise TokenStoreError(unreadable(name))
        return None if value is None else str(value)

    def set(self, name: str, value: str, description: str) -> None:
        """Write the value.

        :raises TokenConflictError: if another worker has written the Variable at the same moment.
        """
        self._call(name, "written", lambda variables: variables.set(name, value, description))

    def delete(self, name: str) -> None:
        """Take the name out."""
        self._call(name, "deleted", lambda variables: variables.delete(name))

    def names(self, prefix: str) -> list[str]:
        """Return the names that begin with the prefix, reading no value."""
        if not _in_task():
            rows = self._call(f"{prefix}*", "listed", lambda variables: _rows(variables, prefix, "key"))
            return [name for (name,) in rows]
        if not hasattr(_variables(), "keys"):
            raise TokenStoreError(
                "A task cannot list Airflow Variables before Airflow 3.3. List where the metadata database "
                "is at hand (the feedamp command on the scheduler's machine), or use the token store 'sql'."
            )
        return list(self._call(f"{prefix}*", "listed", lambda variables: list(variables.keys(prefix))))

    def values(self, prefix: str) -> dict[str, str | None]:
        """Return the values of all Variables whose names begin with the prefix; None where unreadable.

        Beside the metadata database this is one query, past Airflow's look-up: that would have each value
        masked, and the masker takes longer with each one that it knows.
        """
        if _in_task():
            values = dict[str, str | None].fromkeys(self.names(prefix))
            for name in values:
                with suppress(TokenStoreError):
                    values[name] = self.get(name)
            return values
        from airflow.models.crypto import get_fernet
        from cryptography.fernet import InvalidToken

        columns = ("key", "_val", "is_encrypted")
        values = {}
        for name, value, encrypted in self._call(
            f"{prefix}*", "listed", lambda v: _rows(v, prefix, *columns)
        ):
            try:
                sealed = encrypted and value is not None
                values[name] = get_fernet().decrypt(value.encode()).decode() if sealed else value
            except (InvalidToken, ValueError):
                values[name] = None  # this process has no key for it
        return values

    def _call(self, name: str, done: str, action: Callable[[Any], Any]) -> Any:
        try:
            with SUPERVISOR.lock:
                return action(_variables())
        except TokenStoreError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the database or the API server raises
            # Its text may quote the value that was sent.
            kind = type(error).__name__
            if kind == "IntegrityError":
                # Airflow 2.11 and 3.0 write a Variable as DELETE and INSERT: of two that meet, one gets this.
                raise TokenConflictError(
                    f"Airflow Variable {name!r} was written by another worker at the same moment."
                ) from None
            raise TokenStoreError(
                f"Airflow Variable {name!r} could not be {done} ({kind}). Nothing was spent. Is the database "
                "up?"
            ) from None


def unreadable(name: str) -> str:
    """Return what to say of a Variable that is there, or may be, and reads as None."""
    return (
        f"Airflow Variable {name!r} is there and cannot be read. Nothing was spent, and it is untouched. "
        "Either this process (or the API server) has another [core] fernet_key than the one that it was "
        "written with, or the metadata database, the API server or a secrets backend failed just now: "
        "Airflow's log says which."
    )


def _in_task() -> bool:
    """Say whether this is a task, or a trigger, that reaches Variables through its supervisor only."""
    return hasattr(sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS")


def _variables() -> Any:
    """Return the Variable class that works here: a task's own, or the one beside the metadata database."""
    if _in_task():
        from airflow.providers.common.compat.sdk import Variable
    elif os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "client":
        # Airflow's models would make a database of their own here.
        raise TokenStoreError(
            "Airflow Variables cannot be reached from this process: it belongs to a worker and runs no task "
            "(Airflow tests connections in such a one). Nothing was read, written or spent."
        )
    else:
        from airflow.models.variable import Variable
    return Variable


def _rows(variables: Any, prefix: str, *columns: str) -> list[Any]:
    """Return columns of the metadata database's Variables whose names begin with the prefix.

    A whole Variable is not loaded: that alone would have its value masked.
    """
    from airflow.utils.session import create_session
    from sqlalchemy import select

    chosen = [getattr(variables, column) for column in columns]
    with create_session() as session:
        return list(session.execute(select(*chosen).where(variables.key.startswith(prefix, autoescape=True))))
