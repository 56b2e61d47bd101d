"""The bearer on each request to FeedAMP, and what happens when FeedAMP refuses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from requests.auth import AuthBase

from airflow_provider_feedamp.api.http import sendable
from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

    from airflow_provider_feedamp.api.types import TokenSource

_SCHEME = "Bearer "
_DEFAULT_PORTS = {"http": 80, "https": 443}


class BearerAuth(AuthBase):
    """Authorises requests to one FeedAMP base URL with access tokens from a token source.

    After a 401 the source is asked for another token once and the request is sent once more; a second 401 is
    handed back as it is. One object serves any number of threads: what belongs to a request is kept on it.

    :param tokens: Where access tokens come from.
    :param base_url: The only origin (scheme, host, port) that the tokens are sent to.
    """

    def __init__(self, tokens: TokenSource, base_url: str) -> None:
        self._tokens = tokens
        self._origin = origin_of(base_url)
        # A URL that begins with this goes to the base URL's origin; others have to be taken apart to say so.
        self._same = "/".join(base_url.split("/", 3)[:3]) + "/"
        self._accepted = ""

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Add the bearer to a request.

        :raises InputError: The request goes to another origin than the base URL's; nothing is sent.
        """
        if not str(r.url).startswith(self._same) and origin_of(r.url) != self._origin:
            scheme, host, port = self._origin
            raise InputError(
                f"A FeedAMP access token is only sent to {scheme}://{host}:{port}, and this request goes "
                "elsewhere. Use a URL relative to the connection's host, or a session of your own."
            )
        r.headers["Authorization"] = _SCHEME + sendable(self._tokens.token())
        r.hooks["response"].append(self._renew_once)
        return r

    def _renew_once(self, response: Response, **send_options: Any) -> Response:
        """Send a request that got a 401 once more with another token; requests calls this once per answer."""
        request = response.request
        sent = request.headers.get("Authorization", "")
        if response.status_code != 401:
            self._take_note(sent)
            return response
        # A redirect keeps its request's hooks, so this may be the answer of another party.
        if not sent.startswith(_SCHEME) or origin_of(request.url) != self._origin:
            return response
        response.content  # noqa: B018  read, so that the connection is free while the token is renewed
        response.close()
        request.headers["Authorization"] = _SCHEME + sendable(
            self._tokens.replace(sent.removeprefix(_SCHEME))
        )
        if not rewind(request):
            return response
        answer: Response = response.connection.send(request, **send_options)
        answer.history.append(response)
        if answer.status_code != 401:
            self._take_note(request.headers["Authorization"])
        return answer

    def _take_note(self, sent: str) -> None:
        """Tell the token source once of each token that works: a later 401 is then about the token's end."""
        if sent != self._accepted and sent.startswith(_SCHEME):
            self._accepted = sent
            self._tokens.accepted(sent.removeprefix(_SCHEME))


def rewind(request: PreparedRequest) -> bool:
    """Make a request's body ready to be sent once more; False when that is not possible."""
    body: Any = request.body
    if body is None or isinstance(body, bytes | str | bytearray):
        return True
    # Where requests found a file when it prepared the request.
    start = getattr(request, "_body_position", None)
    if not isinstance(start, int) or not hasattr(body, "seek"):
        return False
    body.seek(start)
    return True


class Origin(NamedTuple):
    """Scheme, host and port; two URLs with the same three are served by the same party."""

    scheme: str
    host: str
    port: int | None


def origin_of(url: str | None) -> Origin:
    """Return the origin of a URL, with the scheme's own port where the URL names none."""
    parts = urlsplit(url or "")
    return Origin(parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme))
