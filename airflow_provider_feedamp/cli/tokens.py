"""``feedamp tokens``: move records between stores in a sealed file, and encrypt them anew.

The file is one JSON object: ``sealed`` is the Fernet token around the records, under a key file or a key that
scrypt makes of a passphrase and ``salt``. The costs of scrypt belong to the version, so a file cannot ask for
more memory than that.
"""

from __future__ import annotations

import base64
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from airflow_provider_feedamp.cli.base import (
    Deployment,
    FailedError,
    MisuseError,
    airflow,
    conn_id_option,
    prompt_secret,
    seller_name,
)
from airflow_provider_feedamp.exceptions import FeedAmpError, TokenStoreError
from airflow_provider_feedamp.hooks.sellers import iso, locked, records_by_seller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cryptography.fernet import Fernet

    from airflow_provider_feedamp.tokens.records import TokenRecord

_KIND, _VERSION = "feedamp-tokens", 1
#: 128 MiB and about half a second for each guess.
_SCRYPT = {"length": 32, "n": 2**17, "r": 8, "p": 1}
_SALT_BYTES = 16
SHORTEST_PASSPHRASE = 12
_DAY = 86400.0

_chosen = click.option(
    "--seller",
    "chosen",
    multiple=True,
    type=seller_name,
    metavar="SELLER",
    help="Only this one; repeat for more.",
)
_key_file = click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with a Fernet key; without it, a passphrase is asked for (or read from standard input).",
)


@click.group(no_args_is_help=False, short_help="Move and encrypt token records.")
def tokens() -> None:
    """Move token records between stores in a sealed file, and encrypt them anew."""


@tokens.command("export", short_help="Write token records to a sealed file.")
@click.argument("file", type=click.Path(path_type=Path))
@conn_id_option
@_chosen
@_key_file
def export_tokens(file: Path, conn_id: str, chosen: tuple[str, ...], key_file: Path | None) -> None:
    """Write the connection's token records to a new FILE, encrypted.

    Pause the DAGs of this connection first: a renewal after the export makes the exported tokens worthless.
    """
    salt = b"" if key_file else os.urandom(_SALT_BYTES)
    fernet = _fernet(key_file, salt, new=True)
    if file.exists():
        raise FailedError(f"{str(file)!r} exists; an export never replaces a file.")
    records, problems = _collect(Deployment(conn_id), set(chosen))
    if records:
        clear = json.dumps([json.loads(record.to_json()) for record in records])
        _write(file, salt, fernet.encrypt(clear.encode()))
    click.echo(f"{len(records)} exported" + (f" to {str(file)!r}." if records else ": no file was written."))
    _end(problems)


@tokens.command("import", short_help="Store the token records of a sealed file.")
@click.argument("file", type=click.Path(path_type=Path))
@conn_id_option
@_key_file
@click.option(
    "--force", is_flag=True, help="Write them all, also over records that are newer or cannot be read."
)
def import_tokens(file: Path, conn_id: str, key_file: Path | None, force: bool) -> None:
    """Store the token records of FILE for the connection."""
    from cryptography.fernet import InvalidToken

    from airflow_provider_feedamp.tokens.records import TokenKey, TokenRecord

    salt, sealed = _read(file)
    deployment = Deployment(conn_id)
    with airflow():
        deployment.check_lasting()
    if bool(salt) == bool(key_file):
        needed = "a passphrase, not a key file" if salt else "a key file: name it with --key-file"
        raise MisuseError(f"{str(file)!r} is sealed with {needed}.")
    try:
        clear = json.loads(_fernet(key_file, salt, new=False).decrypt(sealed.encode()))
    except InvalidToken:
        cause = "key" if key_file else "passphrase"
        raise FailedError(
            f"{str(file)!r} cannot be opened: the {cause} is wrong, or the file is damaged."
        ) from None
    records = [TokenRecord.from_json(json.dumps(each), TokenKey(**each["key"])) for each in clear]
    written, problems = _each(records, lambda record: _put(deployment, record, force=force))
    already = len(records) - written - len(problems)
    click.echo(f"{written} imported, {already} already here, {len(problems)} refused.")
    _end(problems)


@tokens.command(short_help="Encrypt records with the first key.")
@conn_id_option
@_chosen
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also those that are under the present key by its name: after a change of Airflow's own Fernet key.",
)
def reencrypt(conn_id: str, chosen: tuple[str, ...], everything: bool) -> None:
    """Write records again that are not encrypted with the first key, as after a change of keys.

    Tokens stay as they are, and nothing is asked of FeedAMP. Tasks may go on meanwhile.
    """
    deployment, present = Deployment(conn_id), _present_keys()
    records, unreadable = _collect(deployment, set(chosen))
    due = [record for record in records if everything or record.sealed_with not in present]
    written, problems = _each(due, lambda record: _reencrypt(deployment, record.key.seller, present))
    problems = unreadable + problems
    click.echo(f"{written} written, {len(records) - len(due)} skipped, {len(problems)} failed.")
    _end(problems)


def _collect(deployment: Deployment, chosen: set[str]) -> tuple[list[TokenRecord], list[str]]:
    """Return the records, and why others cannot be had."""
    with airflow():
        rows = records_by_seller(deployment.custodian())
    records, problems = [], []
    for seller, row in rows.items():
        if chosen and seller not in chosen:
            continue
        if isinstance(row, TokenStoreError):
            problems.append(str(row))
        elif row is not None:
            records.append(row)
        elif chosen:
            problems.append(
                f"seller {seller!r} has no record yet: its refresh token is in the connection only."
            )
    return records, problems + [f"there is no seller {seller!r}." for seller in sorted(chosen - rows.keys())]


def _each(records: Iterable[TokenRecord], work: Callable[[TokenRecord], bool]) -> tuple[int, list[str]]:
    """Return how many records the work has written, and what kept others from it."""
    written, problems = 0, []
    for record in records:
        try:
            written += work(record)
        except (FailedError, FeedAmpError) as error:
            problems.append(str(error))
    return written, problems


def _end(problems: list[str]) -> None:
    """Print what was left out, one line each, and fail if there was anything."""
    if problems:
        for problem in problems[:-1]:
            click.echo(f"Error: {problem}", err=True)
        raise FailedError(problems[-1])


@airflow()
def _put(deployment: Deployment, record: TokenRecord, *, force: bool) -> bool:
    """Store a record that was exported elsewhere; False if the very same tokens are stored already.

    :param force: Store it whatever is stored here now.
    """
    custodian = deployment.custodian(record.key.seller)
    store, key, theirs = custodian.store, custodian.key, record.key
    if theirs != key:
        raise FailedError(
            f"The file holds tokens of client {theirs.client_id!r} at {theirs.token_url}; connection "
            f"{deployment.conn_id!r} is client {key.client_id!r} at {key.token_url}. Name the right "
            "--conn-id."
        )
    try:
        store.read(key)
    except TokenStoreError as error:
        if not force:
            raise FailedError(f"{error} Nothing was written. --force replaces the record.") from error
        store.delete(key)
    with locked(custodian) as nonce:
        stored = store.read(key)
        if stored is not None and not force:
            if _pair(stored) == _pair(record):
                return False
            _check_older(stored, record)
        moved = record.changed(released=nonce, imported=True)
        store.write(moved, expected=stored.revision if stored else None)
    return True


def _pair(record: TokenRecord) -> tuple[int, str, str | None]:
    return record.generation, record.refresh_token, record.access_token


def _check_older(stored: TokenRecord, record: TokenRecord) -> None:
    """Refuse to replace a record by an older one, or by one of the same age.

    Generations count within one authorisation only; of two, the later one is in force.
    """
    from airflow_provider_feedamp.bulk.progress import duration_in_words

    later = stored.issued_at - record.issued_at
    days = f"{later / _DAY:.0f} d" if later >= 2 * _DAY else duration_in_words(later)
    older_by = f" ({days} older)" if later > 0 else ""
    if stored.family and stored.family == record.family:
        newer_by: float = stored.generation - record.generation
        here = f"generation {stored.generation} is stored here"
        there = f"the file has {record.generation} of the same authorisation{older_by}"
    else:
        newer_by = later
        here = f"another authorisation of {iso(stored.issued_at)} is stored here"
        there = f"the file's is of {iso(record.issued_at)}{older_by}"
    if newer_by >= 0:
        raise FailedError(
            f"seller {record.key.seller!r}: {here}, {there}. Overwriting a newer refresh token can lose the "
            "seller; --force does it."
        )


@airflow()
def _present_keys() -> set[str]:
    """Return the names under which a record stands that is encrypted with the first key."""
    from airflow_provider_feedamp.tokens.crypto import AIRFLOW_KEY, OWN_KEY, Sealer

    # No name: the store leaves the encryption to Airflow, whose keys cannot be told apart.
    return {OWN_KEY} if Sealer.configured().own else {AIRFLOW_KEY, ""}


@airflow()
def _reencrypt(deployment: Deployment, seller: str, present: set[str]) -> bool:
    """Write a seller's record and known order again as they are, which encrypts them with the first key."""
    from airflow_provider_feedamp.tokens.custodian import known_order, note_order

    custodian = deployment.custodian(seller)
    store, key = custodian.store, custodian.key
    with locked(custodian) as nonce:
        record = store.read(key)
        if record is None:
            raise FailedError(f"seller {seller!r} was forgotten meanwhile.")
        store.write(record.changed(released=nonce), expected=record.revision)
        written = store.read(key)
        with suppress(TokenStoreError):  # one that cannot be read is noted anew by the next import
            note_order(store, key, known_order(store, key), anew=True)
    if written is None or written.sealed_with not in present:
        raise FailedError(
            f"the record of seller {seller!r} was written, and is still not under [feedamp] encryption_key: "
            f"the token store ({type(store).__name__}) does not encrypt with it."
        )
    return True


def _fernet(key_file: Path | None, salt: bytes, *, new: bool) -> Fernet:
    """Return what seals and opens a file: with the key of a key file, or with a passphrase that is asked for.

    :param new: Whether a file is to be sealed: a person types the passphrase twice, and it has to be long.
    """
    from cryptography.fernet import Fernet
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    if key_file is None:
        passphrase = prompt_secret("Passphrase", twice=new)
        if new and len(passphrase) < SHORTEST_PASSPHRASE:
            raise MisuseError(f"The passphrase needs {SHORTEST_PASSPHRASE} characters at least.")
        if not passphrase:
            raise MisuseError("No passphrase.")
        key = Scrypt(salt=salt, **_SCRYPT).derive(passphrase.encode(errors="surrogateescape"))
        return Fernet(base64.urlsafe_b64encode(key))
    try:
        return Fernet(key_file.read_text(encoding="ascii").strip())
    except OSError as error:
        raise FailedError(f"The key file {str(key_file)!r} cannot be read ({error.strerror}).") from None
    except ValueError:
        raise MisuseError(
            f"The key file {str(key_file)!r} holds no Fernet key. Make one with: (umask 077; feedamp keygen "
            "> KEY_FILE)"
        ) from None


def _write(path: Path, salt: bytes, sealed: bytes) -> None:
    """Write a file that only its owner can read; an existing one is never replaced."""
    named = {"kind": _KIND, "version": _VERSION, "salt": base64.b64encode(salt).decode() or None}
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps({**named, "sealed": sealed.decode()}) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise FailedError(f"{str(path)!r} cannot be written ({error.strerror}).") from None


def _read(path: Path) -> tuple[bytes, str]:
    """Return the salt of a file, and what is sealed in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kind, version, sealed = content["kind"], content["version"], str(content["sealed"])
        salt = base64.b64decode(content["salt"] or "")
    except OSError as error:
        raise FailedError(f"{str(path)!r} cannot be read ({error.strerror}).") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        kind = ""
    if kind != _KIND:
        raise FailedError(f"{str(path)!r} is not a file of 'feedamp tokens export', or it is damaged.")
    if version != _VERSION:
        raise FailedError(
            f"{str(path)!r} has version {version!r}; this command reads {_VERSION}. Upgrade the provider."
        )
    return salt, sealed
