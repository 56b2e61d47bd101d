"""The client's connections to one base URL, and the exchange of a request and its answer on one of them.

urllib3 opens the connections: names, TLS, certificates and proxies are its work. httptools (llhttp) reads the
answers. What lies between them costs a third of urllib3's own exchange, and its pool is a plain deque: one
that waits on a lock can hang for ever after a signal has raised an error in it.
"""

from __future__ import annotations

import math
import os
import select
import ssl
import time
import weakref
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException, HTTPResponse
from socket import SocketIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from certifi import where
from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser
from urllib3.connection import HTTPConnection, HTTPSConnection, ProxyConfig
from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    HTTPError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util import create_urllib3_context, parse_url

from airflow_provider_feedamp.exceptions import ApiError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that one sending and its answer may take in all, however short the read time-out is.
LEAST_TOTAL = 120.0
#: The most bytes of an answer, unpacked. A full page of orders has a few hundred thousand.
LONGEST_ANSWER = 32 * 1024 * 1024
#: The most bytes of an answer that are not its body: heads, and what a chunked body adds.
LONGEST_HEAD = 64 * 1024
#: What each byte of a body may come with: chunks of one byte have five bytes each around it.
_FRAME_OF_A_BYTE = 8
#: Bytes that are read at a time.
_PIECE = 64 * 1024
_PORTS = {"http": 80, "https": 443}


@dataclass(slots=True)
class Request:
    """One request to FeedAMP: ``target`` is what follows the base URL, escaped; ``body`` is JSON."""

    method: str
    target: str
    body: bytes | None = field(repr=False)
    token: str = field(repr=False)


@dataclass(slots=True)
class Response:
    """One answer of FeedAMP's, read to its end: ``content`` is its body, unpacked."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)
    #: The access token that was sent.
    token: str = field(default="", repr=False)
    #: Whether the client has had a success before.
    proven: bool = False


@dataclass(eq=False)
class Wire:
    """Sends requests to one FeedAMP base URL and reads their answers; it repeats and follows nothing.

    Proxies and certificates are those of the environment at the first request, as requests finds them. One
    object serves any number of threads. A connection belongs to one exchange until the answer is read to its
    end; only then it is kept for the next. Whatever ends an exchange early, a signal's error too, ends its
    connection: no answer can go to another request.

    :param base_url: Base URL of the API, such as ``https://host/api/v1/``, with a slash at its end.
    :param timeout: Seconds to connect, and between two pieces of an answer.
    :param kept: How many connections are kept open between two requests.
    :param headers: Headers that each request has.
    """

    base_url: str
    timeout: tuple[float, float]
    kept: int
    headers: Mapping[str, str]
    _route: _Route | None = field(default=None, init=False, repr=False)

    def path(self, request: Request) -> str:
        """Return the path of a request, without its query."""
        return urlsplit(self.base_url + request.target).path

    def exchange(self, request: Request) -> Response:
        """Send a request once and return its answer.

        :raises HTTPError: No answer came.
        :raises ApiError: The answer is longer than an answer may be.
        :raises ConfigurationError: The proxy or the certificates of the environment cannot be used.
        """
        route = self.prepare()
        connection = _idle_connection(route.idle) or self._open(route)
        try:
            answer = self._converse(connection, route, request)
            content = self._content(answer, request)
        except BaseException:
            connection.close()
            raise
        response = Response(answer.status, Headers(answer.fields), content, request.token)
        # Nothing that closes the connection may follow: from here on another thread may have it.
        if answer.reusable and len(route.idle) < self.kept:
            connection.used = True
            route.idle.append(connection)
        else:
            connection.close()
        return response

    def prepare(self) -> _Route:
        """Find out about proxies and certificates, with requests' own rules, once in a process.

        :raises ConfigurationError: Those of the environment cannot be used.
        """
        route = self._route
        if route is not None:
            if route.process == os.getpid():
                return route
            # A child process that used its parent's connections would read the parent's answers.
            _close_all(route.idle)  # which stay open in the parent
        try:
            route = _route_to(self.base_url, self.headers)
        except (OSError, ValueError, HTTPError) as error:
            # Neither the text nor the cause: they may show a proxy's password.
            raise ConfigurationError(
                f"No connection to FeedAMP can be set up ({type(error).__name__}). Check the proxy's URL "
                "(HTTPS_PROXY) and that REQUESTS_CA_BUNDLE, if set, names a file that exists."
            ) from None
        weakref.finalize(self, _close_all, route.idle)
        self._route = route
        return route

    def _open(self, route: _Route) -> _Connection:
        """Open a connection: at most so many seconds for each step, TLS and a proxy's tunnel included."""
        connect, read = self.timeout
        opened = route.new_connection(timeout=connect)
        try:
            if route.tunnel:
                opened.set_tunnel(**route.tunnel)
            opened.connect()
            opened.sock.settimeout(read)
            return _Connection(opened)
        except BaseException as error:
            at_proxy = opened.proxy is not None and not opened.has_connected_to_proxy
            opened.close()
            if at_proxy and isinstance(error, OSError | HTTPException | HTTPError):
                raise ProxyError("Cannot connect to the proxy.", error) from error
            if isinstance(error, ssl.SSLError):
                raise SSLError(error) from error
            if isinstance(error, TimeoutError):
                raise ConnectTimeoutError("The connection was not set up in time.") from error
            if isinstance(error, OSError | HTTPException):
                raise ProtocolError("Connection aborted.", error) from error
            raise

    def _converse(self, connection: _Connection, route: _Route, request: Request) -> AnswerReader:
        """Send a request on a connection and read the answer to its end."""
        answer = AnswerReader(request.method)
        pause = self.timeout[1]
        ends = time.monotonic() + max(2 * pause, LEAST_TOTAL)
        sock = connection.sock
        try:
            try:
                # In no variable of this frame, which Airflow may show with an error.
                sock.sendall(_written(request, route))
            except (ConnectionError, ssl.SSLEOFError):
                answer.reusable = False  # the server may have answered before it had all
            while not answer.complete:
                left = ends - time.monotonic()
                if left < pause:
                    # A server that sends without a pause would be read on and on.
                    if left <= 0:
                        raise TimeoutError("the whole answer took too long")  # noqa: TRY301
                    sock.settimeout(left)
                    answer.reusable = False
                answer.feed(sock.recv(_PIECE))
        except TimeoutError as error:
            host: Any = urlsplit(self.base_url).netloc
            raise ReadTimeoutError(host, self.path(request), "Read timed out.") from error
        except OSError as error:
            if connection.used and not answer.begun:
                closed = ClosedWhileIdle("the server closed the connection between two requests")
                raise ProtocolError("Connection aborted.", closed) from error
            raise ProtocolError("Connection aborted.", error) from error
        return answer

    def _content(self, answer: AnswerReader, request: Request) -> bytes:
        """Return the unpacked body of an answer; of an error that is too long, its beginning."""
        content = bytes(answer.body)
        packed = answer.fields.get(b"content-encoding", b"").lower()
        what = ""
        if b"," in packed:
            what = "packed more than once"
        elif content and packed in {b"gzip", b"x-gzip"}:
            content = _unpacked(content)
        if len(content) > LONGEST_ANSWER and answer.status < 400:
            what = f"of more than {LONGEST_ANSWER // 1024**2} MiB"
        if what:
            raise unusable(answer.status, f"{request.method} {self.path(request)}", what)
        return content


@dataclass(frozen=True, slots=True, repr=False)
class _Route:
    """How requests reach FeedAMP from this process; it holds a proxy's password, so it has no text.

    ``head`` has the header lines of every request, ``prefix`` begins each of their targets.
    """

    process: int
    new_connection: Callable[..., HTTPConnection]
    tunnel: dict[str, Any]
    prefix: str
    head: str
    idle: deque[_Connection]


def _route_to(base_url: str, headers: Mapping[str, str]) -> _Route:
    url = urlsplit(parse_url(base_url).url)
    host, port = str(url.hostname), url.port or _PORTS[url.scheme]
    name = f"[{host}]" if ":" in host else host
    named = {"Host": name if port == _PORTS[url.scheme] else f"{name}:{port}"}
    prefix, tunnel, options, first = url.path, {}, {}, (url.scheme, host, port)
    proxy, login = _proxy_for(url.geturl())
    if proxy:
        scheme = str(proxy.scheme)
        first = (scheme, str(proxy.host), proxy.port or _PORTS[scheme])
        options = {"proxy": proxy}
        if url.scheme == "https":
            tunnel = {"host": host, "port": port, "headers": login, "scheme": scheme}
        else:
            prefix = url.geturl()
            named.update(login)
    if "https" in (url.scheme, first[0]):
        context = _tls_context()
        options |= {"ssl_context": context}
        if first[0] == "https" and proxy:
            options |= {"proxy_config": ProxyConfig(context, False, None, None)}
        kind: type[HTTPConnection] = BoundedHTTPSConnection
    else:
        kind = BoundedHTTPConnection
    lines = "".join(f"{header}: {value}\r\n" for header, value in {**named, **headers}.items())
    new_connection = partial(kind, *first[1:], **options)
    return _Route(os.getpid(), new_connection, tunnel, prefix, lines, deque())


def _proxy_for(url: str) -> tuple[Any, dict[str, str]]:
    """Return the environment's proxy for a URL, parsed, and the header with its login.

    :raises ConfigurationError: It is a SOCKS proxy.
    """
    if not getproxies():
        return None, {}
    # Its import takes 50 ms of the processor, and most environments name no proxy.
    from requests.adapters import HTTPAdapter
    from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy

    found = select_proxy(url, get_environ_proxies(url))
    if not found:
        return None, {}
    refuse_socks(found)
    found = prepend_scheme_if_needed(found, "http")  # type: ignore[no-untyped-call]
    proxy = parse_url(found)
    if not proxy.host or proxy.scheme not in _PORTS:
        raise ValueError("a proxy needs a host")
    return proxy, HTTPAdapter().proxy_headers(found)


def refuse_socks(proxy: str) -> None:
    """Refuse a SOCKS proxy, which needs a library that is not installed.

    :raises ConfigurationError: It is one.
    """
    if proxy.lower().startswith("socks"):
        raise ConfigurationError(
            "The environment names a SOCKS proxy for FeedAMP, which is not supported. Name an HTTP proxy "
            "in HTTPS_PROXY, or the connection's host in NO_PROXY."
        )


def _tls_context() -> ssl.SSLContext:
    """Return what checks certificates, made once: reading all authorities takes 20 ms."""
    context = create_urllib3_context()
    place = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or where()
    context.load_verify_locations(**{"capath" if os.path.isdir(place) else "cafile": place})
    return context


def _written(request: Request, route: _Route) -> bytes:
    """Return a request as it is sent: head and body in one piece, so in one packet and one system call.

    :raises ValueError: Its target would end the line that it is in.
    """
    body, target = request.body, request.target
    if not target.isascii() or not target.isprintable() or " " in target:
        raise ValueError("A target that is not escaped cannot be written into a request.")
    length = ""
    if body is not None:
        length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    elif request.method == "POST":
        length = "Content-Length: 0\r\n"
    return (
        f"{request.method} {route.prefix}{target} HTTP/1.1\r\n{route.head}{length}"
        f"Authorization: Bearer {request.token}\r\n\r\n"
    ).encode("ascii") + (body or b"")


class _Connection:
    """An open connection, and whether it has carried an answer before."""

    __slots__ = ("_opened", "_poll", "_received", "sock", "used")

    def __init__(self, opened: HTTPConnection) -> None:
        self._opened = opened
        self.sock: Any = opened.sock
        self.used = False
        self._poll = select.poll()
        self._poll.register(self.sock, select.POLLIN)
        # TLS within a proxy's TLS: urllib3 takes from the outer one more than it hands on.
        self._received: ssl.MemoryBIO | None = getattr(self.sock, "incoming", None)

    def idle(self) -> bool:
        """Whether nothing has come since the last answer: neither the end nor an answer to no request."""
        return not (self._received and self._received.pending) and not self._poll.poll(0)

    def close(self) -> None:
        """Close the connection."""
        self._opened.close()


def _idle_connection(idle: deque[_Connection]) -> _Connection | None:
    """Return the kept connection that was used last, if it is still open."""
    while idle:
        try:
            connection = idle.pop()
        except IndexError:  # another thread was faster
            break
        if connection.idle():
            return connection
        connection.close()
    return None


def _close_all(idle: deque[_Connection]) -> None:
    with suppress(IndexError):  # the last one; another thread may take it
        while True:
            idle.pop().close()


class ClosedWhileIdle(ConnectionError):
    """The server closed a connection between two requests, so it has most likely not seen the second."""


def closed_while_idle(error: HTTPError) -> bool:
    """Whether an error says that a server closed a connection that it had kept, and answered nothing."""
    return any(isinstance(each, ClosedWhileIdle) for each in error.args)


class Headers(Mapping[str, str]):
    """The headers of an answer; their names are not case-sensitive.

    :param fields: Values by names in small letters; those of a repeated header are joined by commas.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[bytes, bytes]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower().encode("latin-1")].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._fields)

    def __len__(self) -> int:
        return len(self._fields)


@dataclass(slots=True, eq=False, repr=False)
class AnswerReader:
    """One answer as it comes in: httptools calls what begins with ``on_``.

    Where one answer ends and the next begins must not be a matter of opinion. An answer with two lengths, or
    with a length and chunks, is refused. What follows an answer ends the connection.

    :param method: HTTP method of the request; the answer to a HEAD has no body.
    """

    method: str
    status: int = 0
    fields: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    begun: bool = False
    complete: bool = False
    reusable: bool = True
    _fault: str = ""
    _until_close: bool = False
    _received: int = 0
    _parser: Any = None

    def __post_init__(self) -> None:
        self._parser = HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take in a piece of the answer; an empty one is the connection's end.

        :raises ConnectionError: The connection ended too early.
        :raises ProtocolError: This is no answer, or it is not clear where it ends.
        """
        if not data:
            if not self._until_close:
                text = (
                    "the answer was cut off" if self.begun else "the server closed the connection unanswered"
                )
                raise ConnectionResetError(text)
            self.complete, self.reusable, self._parser = True, False, None
            return
        self.begun = True
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserCallbackError as error:  # hides what a signal has raised in a callback
            raise (error.__context__ or error) from None
        except (HttpParserError, HttpParserUpgrade):  # its text may quote what came
            self._fault = self._fault or "it is not HTTP"
            self.reusable = False
        size = len(self.body)
        if size > LONGEST_ANSWER:
            self.complete, self.reusable = True, False
        elif self._received - size > LONGEST_HEAD + _FRAME_OF_A_BYTE * size:
            self._fault = self._fault or "its head is too long"
        if self.complete:
            self._parser = None  # it refers to this object: together they would wait for the collector
        elif self._fault:
            raise ProtocolError(f"The answer cannot be read: {self._fault}.") from None

    def on_message_begin(self) -> None:
        """Note the beginning of what follows the answer."""
        if self.complete:
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in one header."""
        if self.status < 200:  # else it is a trailer, or belongs to nothing that was asked for
            name, value = name.lower(), value.strip()
            fields = self.fields
            fields[name] = b"%b, %b" % (fields[name], value) if name in fields else value

    def on_headers_complete(self) -> None:
        """Find out how the body ends."""
        if self.status >= 200:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self.fields.clear()
            return
        self.status = status
        self.reusable = self.reusable and self._parser.should_keep_alive()
        length = self.fields.get(b"content-length")
        coding = self.fields.get(b"transfer-encoding")
        if (length is not None and not length.isdigit()) or (coding and length):
            self._fault = "it has two lengths, or none that is a number"
        elif coding is not None and coding.lower() != b"chunked":
            self._fault = "it is transferred in an unknown way"
        self._until_close = length is None and coding is None
        if self.method == "HEAD":
            self.complete, self.reusable = True, False

    def on_body(self, body: bytes) -> None:
        """Take in a piece of the body."""
        if not self.complete:
            self.body += body  # a list of pieces would take many times their bytes, if they are small

    def on_message_complete(self) -> None:
        """End the answer, unless it was an interim one."""
        # An answer without a clear end is none, though the parser has found one.
        if self.status >= 200 and not self._fault:
            self.complete = True


def _unpacked(content: bytes) -> bytes:
    """Return what was packed by gzip; of more than an answer may have, a little more than that.

    :raises DecodeError: It is not packed by gzip, or its end is missing.
    """
    unpacked = bytearray()
    unpacking = None
    # By pieces, as each of the parts that it may be packed in leaves a copy of what is behind it.
    for start in range(0, len(content), _PIECE):
        packed = content[start : start + _PIECE]
        while packed and len(unpacked) <= LONGEST_ANSWER:
            unpacking = unpacking or zlib.decompressobj(zlib.MAX_WBITS | 16)
            try:
                unpacked += unpacking.decompress(packed, LONGEST_ANSWER + 1 - len(unpacked))
            except zlib.error as error:
                raise DecodeError("The answer is not packed by gzip, as it says.", error) from error
            packed = unpacking.unused_data
            if unpacking.eof:
                unpacking = None
    if unpacking and len(unpacked) <= LONGEST_ANSWER:
        raise DecodeError("The answer's packed body is cut off.")
    return bytes(unpacked)


def unusable(status: int, asked: str, what: str) -> ApiError:
    """Return the error for an answer whose body is not read.

    :param asked: Method and path.
    """
    return ApiError(
        f"FeedAMP answered {asked} with HTTP {status} and a body {what}, which is not read. "
        "Ask for less at once (page_size); is there a proxy in between?",
        status=status,
    )


class Timed(SocketIO):
    """What one answer is read from by http.client, until its time is up.

    A read time-out bounds the pause between two pieces: a server that sends a byte now and then never meets
    it. So each wait for a piece is as long as the read time-out, or as what is left.
    """

    #: When the time is up, by the monotonic clock.
    ends: float
    _sock: Any

    def readinto(self, buffer: Any) -> int | None:
        """Read a piece.

        :raises TimeoutError: The time is up.
        """
        left = self.ends - time.monotonic()
        pause = self._sock.gettimeout()
        if pause is None or left >= pause:
            return SocketIO.readinto(self, buffer)
        if left <= 0:
            raise TimeoutError("the whole answer took too long")
        sock = self._sock
        sock.settimeout(left)
        try:
            return SocketIO.readinto(self, buffer)
        finally:
            sock.settimeout(pause)


class BoundedHTTPConnection(HTTPConnection):
    """Bounds the time until the end of an answer that http.client reads: a proxy's to CONNECT, a session's.

    The time is twice the read time-out, at least :data:`LEAST_TOTAL`, from the sending on.
    """

    _began = 0.0

    def connect(self) -> None:
        """Connect; a proxy's answer to that has its time, too."""
        self._began = time.monotonic()
        super().connect()

    def request(self, *args: Any, **options: Any) -> None:
        """Send a request."""
        self._began = time.monotonic()
        super().request(*args, **options)

    def response_class(self, sock: Any, *args: Any, **options: Any) -> HTTPResponse:  # type: ignore[override]
        """Begin to read an answer."""
        pause = self.timeout  # that of the read by now
        total = math.inf if pause is None else max(2 * pause, LEAST_TOTAL)
        answer = HTTPResponse(sock, *args, **options)
        raw: Any = answer.fp.raw
        # What sockets are read through cannot be chosen.
        raw.__class__ = Timed
        raw.ends = self._began + total
        return answer


class BoundedHTTPSConnection(BoundedHTTPConnection, HTTPSConnection):
    """The same, over TLS."""
