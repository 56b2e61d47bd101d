"""The requests session that talks to one FeedAMP base URL."""

from __future__ import annotations

import platform
import random
import re
import time
from functools import cached_property
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests
from requests import PreparedRequest, Request, Response
from requests.hooks import dispatch_hook

from airflow_provider_feedamp import __version__
from airflow_provider_feedamp.api.call import Call
from airflow_provider_feedamp.api.origin import origin_of
from airflow_provider_feedamp.api.retry import DEFAULT_RETRIES, RetryAdapter

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests.auth import AuthBase

    from airflow_provider_feedamp.api.pacing import Pacer

#: Seconds to connect, and between two pieces of an answer.
DEFAULT_TIMEOUT = (10.0, 60.0)
DEFAULT_POOL_SIZE = 32
USER_AGENT = " ".join(
    [
        f"airflow-provider-feedamp/{__version__}",
        f"requests/{requests.__version__}",
        f"Python/{platform.python_version()}",
    ]
)
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class FeedAmpSession(requests.Session):
    """A session whose relative URLs start at the base URL, with authorisation, time-outs and retries.

    ``orders``, ``/orders`` and ``orders?page_size=50`` all go below the base URL. :class:`RetryAdapter` says
    what is sent again, and when all requests of the session pause. Credentials come from ``auth`` alone: a
    ``.netrc`` is not read, cookies are not kept, and a redirect to another origin loses the bearer.

    :param base_url: Base URL of the API, such as ``https://host/api/v1``; a trailing slash does not matter.
    :param auth: Authorises each request, see :class:`BearerAuth`.
    :param timeout: Seconds for requests that name none: one number, or one to connect and one to read.
    :param retries: How often a GET or PUT is sent again at most.
    :param pool_size: Connections that are kept open; give at least as many as threads use the session.
    :param sleep: Waits for so many seconds; tests hand in their own.
    :param jitter: A random number from 0 to 1; tests hand in their own.
    :param clock: Seconds on a clock that never goes back; tests hand in their own.
    """

    auth: AuthBase

    def __init__(
        self,
        base_url: str,
        auth: AuthBase,
        timeout: float | tuple[float, float] = DEFAULT_TIMEOUT,
        *,
        retries: int = DEFAULT_RETRIES,
        pool_size: int = DEFAULT_POOL_SIZE,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.base_url = base_url.rstrip("/")
        self.auth = auth
        self.timeout = timeout
        self.headers["User-Agent"] = USER_AGENT
        self.headers["Accept"] = "application/json"
        # The token alone says which seller is meant; no cookie of the server's may say otherwise.
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        adapter = RetryAdapter(retries, sleep=sleep, jitter=jitter, clock=clock, pool_maxsize=pool_size)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def prepare_request(self, request: Request) -> PreparedRequest:
        """Prepare a request, with its URL resolved against the base URL."""
        url = str(request.url)
        if not _ABSOLUTE.match(url):
            request.url = f"{self.base_url}/{url.lstrip('/')}"
        return super().prepare_request(request)

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        """Send a prepared request, with the session's time-out where it has none of its own."""
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self.timeout
        return super().send(request, **kwargs)

    def call(
        self, method: str, target: str, body: bytes | None = None, pacers: tuple[Pacer, ...] = ()
    ) -> Response:
        """Send a call of the client's own by the short way.

        For each request :meth:`request` looks for proxies and certificates in the environment, merges
        headers, takes the URL apart and sees to cookies and redirects, which costs more than sending an
        order. Here all that is known from the session's first call on. A redirect is not followed: a
        redirected PUT would be repeated as a GET, and its 200 would pass for a placed order.

        :param method: HTTP method.
        :param target: What follows the base URL, escaped.
        :param body: JSON to send.
        :param pacers: What each sending of this call waits for, a repeated one too.
        """
        base, headers, options = self._short_way
        url = base + target
        call = Call(method, url, headers, body, pacers)
        call.hooks["response"] += self.hooks["response"]
        self.auth(call)
        answer = self.get_adapter(url).send(call, **options)
        final: Response = dispatch_hook("response", call.hooks, answer, **options)  # type: ignore[no-untyped-call]
        return final

    def authorise(self) -> None:
        """Obtain the access token that the next request will use, and send nothing to the order API.

        :raises TokenError: There is none to be had.
        """
        self.auth(Call("GET", self._short_way[0], {}, None))

    @cached_property
    def _short_way(self) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """The base URL, headers and options of all calls, as requests makes them out for one request."""
        base = PreparedRequest()
        base.prepare_url(f"{self.base_url}/", None)
        url = str(base.url)
        options = self.merge_environment_settings(url, {}, False, None, None)
        return url, dict(self.headers), {**options, "timeout": self.timeout}

    def rebuild_auth(self, prepared_request: PreparedRequest, response: Response) -> None:
        """Take the bearer off a redirect that leaves the origin, and look for no other credentials."""
        if origin_of(prepared_request.url) != origin_of(response.request.url):
            prepared_request.headers.pop("Authorization", None)
