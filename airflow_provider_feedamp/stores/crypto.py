"""Encrypts token records with the deployment's Fernet key, the one that Airflow's own secrets are under."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cryptography.fernet import InvalidToken

from airflow_provider_feedamp.exceptions import ConfigurationError, TokenRecordError

if TYPE_CHECKING:
    from airflow_provider_feedamp.tokens.models import TokenKey

#: Where Airflow keeps ``get_fernet``: for tasks from 3.3 on, and beside its models in every version.
_HOMES = ("airflow.sdk.crypto", "airflow.models.crypto")


def encrypt(text: str) -> str:
    """Return the text under the first of the deployment's Fernet keys.

    :raises ConfigurationError: if there is no key to encrypt with.
    """
    encrypted: bytes = _fernet().encrypt(text.encode())
    return encrypted.decode()


def decrypt(encrypted: str, key: TokenKey) -> str:
    """Return the text that was encrypted under any of the deployment's Fernet keys.

    :param key: Whose record it is; named in the error.
    :raises ConfigurationError: if there is no key to decrypt with.
    :raises TokenRecordError: if none of the keys fits.
    """
    fernet = _fernet()
    try:
        text: bytes = fernet.decrypt(encrypted.encode())
    except InvalidToken:
        raise TokenRecordError(
            f"The token record of seller {key.seller!r} (client {key.client_id!r}) cannot be decrypted: it "
            "is damaged, or was encrypted under another Fernet key than this worker has. Nothing changed. "
            "Give every worker the same [core] fernet_key, with a replaced key behind the new one "
            "(new,former). If the former key is lost, authorise the seller again."
        ) from None
    return text.decode()


def _fernet() -> Any:
    get_fernet = _get_fernet()
    try:
        fernet = get_fernet()
    except Exception as error:  # noqa: BLE001 - each Airflow has its own; its text or cause may quote the key
        raise ConfigurationError(
            f"[core] fernet_key is not a list of Fernet keys ({type(error).__name__}). {_REMEDY}"
        ) from None
    if not getattr(fernet, "is_encrypted", False):
        raise ConfigurationError(
            f"[core] fernet_key is empty, and the token store 'sql' never stores tokens in clear. {_REMEDY}"
        )
    return fernet


_REMEDY = (
    "Set AIRFLOW__CORE__FERNET_KEY to the same key wherever Airflow runs; one is made by "
    "cryptography.fernet.Fernet.generate_key()."
)


def _get_fernet() -> Any:
    for home in _HOMES:
        try:
            return import_module(home).get_fernet
        except ImportError:
            continue
    raise ConfigurationError(f"This Airflow has no Fernet encryption: looked into {' and '.join(_HOMES)}.")
