"""Encrypts token records with the keys of ``[feedamp] encryption_key``, else with Airflow's Fernet key."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken

from airflow_provider_feedamp.exceptions import ConfigurationError, TokenStoreError

if TYPE_CHECKING:
    from airflow_provider_feedamp.tokens.records import TokenKey

#: How ``sellers list`` names the keys that a record can be encrypted with.
OWN_KEY = "encryption_key"
AIRFLOW_KEY = "fernet_key"

_REMEDY = (
    "Set AIRFLOW__FEEDAMP__ENCRYPTION_KEY to the same key wherever Airflow runs; `feedamp keygen` makes one."
)


@dataclass(frozen=True, slots=True)
class Sealer:
    """Encrypts and decrypts records; the first key writes, all keys read.

    :param own: The keys of ``[feedamp] encryption_key``, first the one that writes; may be empty.
    """

    own: tuple[Fernet, ...] = field(default=(), repr=False)

    @classmethod
    def configured(cls) -> Sealer:
        """Return the sealer of this deployment.

        :raises ConfigurationError: if ``[feedamp] encryption_key`` is not a list of Fernet keys.
        """
        from airflow.providers.common.compat.sdk import conf

        value = conf.get("feedamp", "encryption_key", fallback=None) or ""
        keys = [key.strip() for key in value.split(",") if key.strip()]
        try:
            return cls(tuple(Fernet(key) for key in keys))
        except ValueError:
            # No cause: it could quote the key.
            raise ConfigurationError(
                "[feedamp] encryption_key is not a comma-separated list of Fernet keys. `feedamp keygen` "
                "makes one; the first key writes, all keys read."
            ) from None

    def seal(self, text: str) -> str:
        """Return the text under the first own key, else under the first of Airflow's Fernet keys.

        :raises ConfigurationError: if there is no key to encrypt with.
        """
        fernet = self.own[0] if self.own else _airflow_fernet()
        encrypted: bytes = fernet.encrypt(text.encode())
        return encrypted.decode()

    def open(self, sealed: str, key: TokenKey) -> tuple[str, str]:
        """Return the text that was encrypted under any own key, or any of Airflow's, and the name of the key.

        :param key: Whose record it is; named in the error.
        :raises TokenStoreError: if this worker has no key that fits; retryable, since another worker may.
        """
        for number, fernet in enumerate(self.own, 1):
            try:
                text = fernet.decrypt(sealed.encode()).decode()
            except InvalidToken:
                continue
            return text, OWN_KEY if number == 1 else f"{OWN_KEY} {number}"
        try:
            return _airflow_fernet().decrypt(sealed.encode()).decode(), AIRFLOW_KEY
        except (InvalidToken, ConfigurationError):
            raise TokenStoreError(
                f"The token record of seller {key.seller!r} (client {key.client_id!r}) is there and cannot "
                "be decrypted: it was encrypted under a key that this process does not have, or it is "
                "damaged. Nothing was spent, and the record is untouched. Give every worker the same "
                "[feedamp] encryption_key (and [core] fernet_key), with a replaced key behind the new one "
                "(new,former). If the former key is lost, authorise the seller again."
            ) from None


@cache  # an import that fails is tried anew each time, and swallows a signal that comes meanwhile
def _crypto_of_airflow() -> Any:
    try:
        return import_module("airflow.sdk.crypto")  # for tasks from 3.3 on
    except ImportError:
        return import_module("airflow.models.crypto")  # beside the models in every version


def _airflow_fernet() -> Any:
    home = _crypto_of_airflow()
    try:
        fernet = home.get_fernet()
    except Exception as error:  # noqa: BLE001 - each Airflow has its own; its text or cause may quote the key
        raise ConfigurationError(
            f"[core] fernet_key is not a list of Fernet keys ({type(error).__name__}). {_REMEDY}"
        ) from None
    if not getattr(fernet, "is_encrypted", False):
        raise ConfigurationError(
            "[feedamp] encryption_key and [core] fernet_key are both empty, and the token store 'sql' never "
            f"stores tokens in clear. {_REMEDY}"
        )
    return fernet
