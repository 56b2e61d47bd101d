"""What comes back from the browser step: the redirect URL, pasted or caught, checked against ``state``."""

from __future__ import annotations

import hmac
import queue
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qs, urlsplit

from airflow_provider_feedamp.cli.group import FailedError, MisuseError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOOPBACK = "127.0.0.1"
_PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>FeedAMP</title>"
    "<body style='font:1.2em sans-serif;margin:4em'><h1>{title}</h1><p>{text}</p>"
)
_ARRIVED = ("Thank you", "You can close this window. The command line goes on.")
_DECLINED = ("Not authorised", "Access was declined. You can close this window.")
_REFUSED = ("Not this one", "This link belongs to another authorisation. Use the latest one.")


class OtherStateError(FailedError):
    """The redirect does not carry our state: somebody else's, or an earlier one's."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """The query of a redirect: a code, or the reason why there is none.

    :param code: Single-use; never shown.
    """

    code: str
    error: str
    state: str

    @classmethod
    def parse(cls, url: str) -> Redirect | None:
        """Read a URL, or the query alone; None when it is no redirect of this kind."""
        text = url.strip()
        try:
            query = urlsplit(text).query or text.lstrip("?")
            fields = parse_qs(query, max_num_fields=20)
        except ValueError:
            return None
        values = {name: fields.get(name, []) for name in ("code", "error", "state")}
        if any(len(value) > 1 for value in values.values()) or not values["state"]:
            return None
        if not (values["code"] or values["error"]):
            return None
        return cls(**{name: value[0] if value else "" for name, value in values.items()})

    def checked(self, state: str) -> str:
        """Return the code.

        :param state: The one that we sent the browser away with.
        :raises OtherStateError: if the redirect has another one.
        :raises FailedError: if access was declined.
        """
        if not hmac.compare_digest(self.state.encode(errors="replace"), state.encode()):
            raise OtherStateError(
                "The redirect's state is not the one of this authorisation, so its code was not used. Start "
                "again and use the redirect that follows the new URL."
            )
        if not self.code:
            reason = (
                self.error if re.fullmatch(r"[a-zA-Z_]{1,64}", self.error) else "no reason that can be shown"
            )
            raise FailedError(
                f"FeedAMP sent the browser back without a code ({reason}): access was declined."
            )
        return self.code


def code_of(pasted: str, state: str) -> str:
    """Return the code out of a redirect URL that a person pasted.

    :raises FailedError: if it is none, or not this authorisation's.
    """
    redirect = Redirect.parse(pasted)
    if redirect is None:
        raise MisuseError(
            "That is not the URL which the browser came back to. Copy it whole from the address bar: it has "
            "code and state in it."
        )
    return redirect.checked(state)


class _Server(ThreadingHTTPServer):
    """Takes redirects on a loopback port."""

    daemon_threads = True
    #: One authorisation at a time: a second command on the same port has to fail.
    allow_reuse_port = False

    def __init__(self, port: int, state: str) -> None:
        super().__init__((_LOOPBACK, port), _Handler)
        self.state = state
        self.outcome: queue.Queue[str | FailedError] = queue.Queue()


class _Handler(BaseHTTPRequestHandler):
    """Answers the browser; nothing of the request is logged or echoed."""

    server: _Server
    timeout = 10  # a browser opens connections ahead of time and says nothing on them
    server_version = "feedamp"
    sys_version = ""
    _status: ClassVar[dict[tuple[str, str], int]] = {_ARRIVED: 200, _DECLINED: 200, _REFUSED: 400}

    def do_GET(self) -> None:
        """Take a redirect; anything else that a browser asks for is not here."""
        redirect = Redirect.parse(urlsplit(self.path).query)
        if redirect is None:
            self.send_error(404)
            return
        outcome: str | FailedError
        try:
            outcome, page = redirect.checked(self.server.state), _ARRIVED
        except OtherStateError:
            self._answer(_REFUSED)  # anybody can send one: the true one may still come
            return
        except FailedError as failure:
            outcome, page = failure, _DECLINED
        self._answer(page)
        self.server.outcome.put(outcome)

    def _answer(self, page: tuple[str, str]) -> None:
        body = _PAGE.format(title=page[0], text=page[1]).encode()
        self.send_response(self._status[page])
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the request line holds the code."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A loopback port that waits for the redirect.

    :param url: Where it listens.
    """

    url: str
    _outcome: queue.Queue[str | FailedError]

    def wait(self, seconds: float) -> str:
        """Return the code of the redirect that carries our state.

        :raises FailedError: if access was declined, or none came in time.
        """
        try:
            outcome = self._outcome.get(timeout=seconds)
        except queue.Empty:
            raise FailedError(
                f"No redirect with this authorisation's state came within {seconds:.0f} s. If the browser is "
                "on another machine, use --code-from-stdin and paste the URL that it came back to."
            ) from None
        if isinstance(outcome, FailedError):
            raise outcome
        return outcome


@contextmanager
def listening(port: int, state: str) -> Iterator[Listener]:
    """Catch redirects on 127.0.0.1 for as long as the block runs.

    :param port: 0 takes a free one.
    :raises FailedError: if the port is taken.
    """
    try:
        server = _Server(port, state)
    except OSError as error:
        raise FailedError(
            f"Cannot listen on {_LOOPBACK}:{port} ({error.strerror}). Name another --port, or leave it out."
        ) from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Listener(f"http://{_LOOPBACK}:{server.server_address[1]}/", server.outcome)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
