"""``feedamp tokens``: move records between stores, sealed, and encrypt them anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from airflow_provider_feedamp.cli.deployment import Deployment, conn_id_option, seller_name
from airflow_provider_feedamp.cli.group import FailedError, MisuseError
from airflow_provider_feedamp.cli.typed import typed_in
from airflow_provider_feedamp.exceptions import FeedAmpError, TokenStoreError

if TYPE_CHECKING:
    from airflow_provider_feedamp.cli.archive import Lock
    from airflow_provider_feedamp.tokens.records import TokenRecord

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


@click.group(no_args_is_help=False)
def tokens() -> None:
    """Move token records between stores in a sealed file, and encrypt them anew."""


@tokens.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@conn_id_option
@_chosen
@_key_file
def export_tokens(file: Path, conn_id: str, chosen: tuple[str, ...], key_file: Path | None) -> None:
    """Write the connection's token records to a new FILE, encrypted.

    Pause the DAGs of this connection first: a renewal after the export makes the exported tokens worthless.
    """
    from airflow_provider_feedamp.cli.archive import seal, write_new

    lock = _lock(key_file, new=True)
    if file.exists():
        raise FailedError(f"{str(file)!r} exists; an export never replaces a file.")
    records, problems = _collect(Deployment(conn_id), set(chosen))
    if records:
        write_new(file, seal(records, lock))
    click.echo(f"{len(records)} exported" + (f" to {str(file)!r}." if records else ": no file was written."))
    _end(problems)


@tokens.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@conn_id_option
@_key_file
@click.option(
    "--force", is_flag=True, help="Write them all, also over records that are newer or cannot be read."
)
def import_tokens(file: Path, conn_id: str, key_file: Path | None, force: bool) -> None:
    """Store the token records of FILE for the connection."""
    from airflow_provider_feedamp.cli.archive import SealedFile

    sealed = SealedFile.read(file)
    deployment = Deployment(conn_id)
    deployment.check_lasting()
    written, problems = 0, []
    records = sealed.open(_lock(key_file, new=False))
    for record in records:
        try:
            written += deployment.put(record, force=force)
        except (FailedError, FeedAmpError) as error:
            problems.append(str(error))
    already = len(records) - written - len(problems)
    click.echo(f"{written} imported, {already} already here, {len(problems)} refused.")
    _end(problems)


@tokens.command()
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
    deployment = Deployment(conn_id)
    present = deployment.present_keys()
    records, problems = _collect(deployment, set(chosen))
    due = [record for record in records if everything or record.sealed_with not in present]
    written = 0
    for record in due:
        try:
            deployment.reencrypt(record.key.seller)
            written += 1
        except (FailedError, FeedAmpError) as error:
            problems.append(str(error))
    click.echo(f"{written} written, {len(records) - len(due)} skipped, {len(problems)} failed.")
    _end(problems)


def _collect(deployment: Deployment, chosen: set[str]) -> tuple[list[TokenRecord], list[str]]:
    """Return the records, and why others cannot be had."""
    records, problems, seen = [], [], set()
    for seller, found in deployment.records():
        if chosen and seller not in chosen:
            continue
        seen.add(seller)
        if isinstance(found, TokenStoreError):
            problems.append(str(found))
        elif found is not None:
            records.append(found)
        elif chosen:
            problems.append(
                f"seller {seller!r} has no record yet: its refresh token is in the connection only."
            )
    problems += [f"there is no seller {seller!r}." for seller in sorted(chosen - seen)]
    return records, problems


def _lock(key_file: Path | None, *, new: bool) -> Lock:
    from airflow_provider_feedamp.cli.archive import SHORTEST_PASSPHRASE, Lock

    if key_file is not None:
        return Lock.from_key_file(key_file)
    passphrase = typed_in("Passphrase", twice=new)
    if len(passphrase) < (SHORTEST_PASSPHRASE if new else 1):
        raise MisuseError(
            f"The passphrase needs {SHORTEST_PASSPHRASE} characters at least." if new else "No passphrase."
        )
    return Lock(passphrase=passphrase)


def _end(problems: list[str]) -> None:
    """Say what was left out, one line each, and fail if there was anything."""
    if problems:
        for problem in problems[:-1]:
            click.echo(f"Error: {problem}", err=True)
        raise FailedError(problems[-1])
