"""The file that carries token records between stores: Fernet under a key file or a passphrase (scrypt).

One JSON object; ``salt`` says that a passphrase made the key, ``sealed`` is the Fernet token around the
records. The costs of scrypt belong to the version, so a file cannot ask for more memory than that.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.cli.group import FailedError, MisuseError
from airflow_provider_feedamp.tokens.records import TokenKey, TokenRecord

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_KIND = "feedamp-tokens"
_VERSION = 1
#: 128 MiB and about half a second for each guess.
_SCRYPT = {"length": 32, "n": 2**17, "r": 8, "p": 1}
_SALT_BYTES = 16
SHORTEST_PASSPHRASE = 12


@dataclass(frozen=True, slots=True)
class Lock:
    """What a file is sealed with: a Fernet key out of a key file, or a passphrase."""

    key: str = field(default="", repr=False)
    passphrase: str = field(default="", repr=False)

    @classmethod
    def from_key_file(cls, path: Path) -> Lock:
        """Read a key file.

        :raises FailedError: if it cannot be read or holds no Fernet key.
        """
        from cryptography.fernet import Fernet

        try:
            key = path.read_text(encoding="ascii").strip()
            Fernet(key)
        except OSError as error:
            raise FailedError(f"The key file {str(path)!r} cannot be read ({error.strerror}).") from None
        except ValueError:
            raise MisuseError(
                f"The key file {str(path)!r} holds no Fernet key. Make one with: (umask 077; feedamp keygen "
                "> KEY_FILE)"
            ) from None
        return cls(key=key)

    def fernet(self, salt: bytes) -> Any:
        """Return the Fernet to seal or open with."""
        from cryptography.fernet import Fernet
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        if self.key:
            return Fernet(self.key)
        key = Scrypt(salt=salt, **_SCRYPT).derive(self.passphrase.encode(errors="surrogateescape"))
        return Fernet(base64.urlsafe_b64encode(key))


def seal(records: Sequence[TokenRecord], lock: Lock) -> str:
    """Return the file's text."""
    salt = b"" if lock.key else os.urandom(_SALT_BYTES)
    clear = json.dumps([json.loads(record.to_json()) for record in records])
    sealed: bytes = lock.fernet(salt).encrypt(clear.encode())
    content = {
        "kind": _KIND,
        "version": _VERSION,
        "salt": base64.b64encode(salt).decode() or None,
        "sealed": sealed.decode(),
    }
    return json.dumps(content) + "\n"


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A file that was read and not opened yet.

    :param path: Named in errors.
    """

    path: Path
    salt: bytes
    sealed: str

    @classmethod
    def read(cls, path: Path) -> SealedFile:
        """Read a file.

        :raises FailedError: if it cannot be read or is no export of this version.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            kind, version, sealed = content["kind"], content["version"], str(content["sealed"])
            salt = base64.b64decode(content["salt"] or "")
        except OSError as error:
            raise FailedError(f"{str(path)!r} cannot be read ({error.strerror}).") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            kind = ""
        if kind != _KIND:
            raise FailedError(
                f"{str(path)!r} is not a file of 'feedamp tokens export', or it is damaged."
            ) from None
        if version != _VERSION:
            raise FailedError(
                f"{str(path)!r} has version {version!r}; this command reads {_VERSION}. Upgrade the provider."
            )
        return cls(path, salt, sealed)

    def open(self, lock: Lock) -> list[TokenRecord]:
        """Return the records.

        :raises FailedError: if this key or passphrase does not open it.
        :raises TokenRecordError: if a record is of a newer format.
        """
        if bool(self.salt) == bool(lock.key):
            needed = "a passphrase, not a key file" if self.salt else "a key file: name it with --key-file"
            raise MisuseError(f"{str(self.path)!r} is sealed with {needed}.")
        from cryptography.fernet import InvalidToken

        try:
            clear = lock.fernet(self.salt).decrypt(self.sealed.encode())
        except InvalidToken:
            what = "key" if lock.key else "passphrase"
            raise FailedError(
                f"{str(self.path)!r} cannot be opened: the {what} is wrong, or the file is damaged."
            ) from None
        return [
            TokenRecord.from_json(json.dumps(each), TokenKey(**each["key"])) for each in json.loads(clear)
        ]


def write_new(path: Path, text: str) -> None:
    """Write a file that only its owner can read; an existing one is never replaced.

    :raises FailedError: if it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise FailedError(f"{str(path)!r} cannot be written ({error.strerror}).") from None
