"""The secrets that the token tests use, and the check that none of them has got out."""

from __future__ import annotations

import traceback

REFRESH_TOKEN = "rt-OLD-7f3c91d2a4e8"
NEW_REFRESH_TOKEN = "rt-NEW-b02e6d5574aa"
ACCESS_TOKEN = "at-LIVE-41c8e0937bd6"
NEW_ACCESS_TOKEN = "at-NEXT-9d27ff30c15e"
CLIENT_SECRET = "cs-KEPT-5a66e1b09c3d"
CODE = "code-ONCE-e8814bd0f72a"

#: What a token endpoint grants for REFRESH_TOKEN.
PAIR = {
    "access_token": NEW_ACCESS_TOKEN,
    "token_type": "Bearer",
    "refresh_token": NEW_REFRESH_TOKEN,
    "expires_in": 3600,
}

SECRETS = (REFRESH_TOKEN, NEW_REFRESH_TOKEN, ACCESS_TOKEN, NEW_ACCESS_TOKEN, CLIENT_SECRET, CODE)


def secrets_in(text: str) -> list[str]:
    """Return the secrets of which this text shows even the telling part."""
    return [secret for secret in SECRETS if secret.rpartition("-")[2] in text]


def told(error: BaseException) -> str:
    """Return all that an error tells: its text, its repr and the traceback with every cause."""
    return "\n".join([str(error), repr(error), *traceback.format_exception(error), repr(vars(error))])
