"""The errors of this provider: each says what failed, for whom, and whether trying again can help."""

from __future__ import annotations

import traceback
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Refusals of one order, refund or return. Any other 4xx (403, 405, 415, …) would meet all of them alike.
_ABOUT_ONE = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.GONE,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.REQUEST_URI_TOO_LONG,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)


class FeedAmpError(Exception):
    """Base of every error that this provider raises on purpose.

    :param message: What failed, for which connection, seller or order, and what the reader can do next.
    :param status: HTTP status of the answer, where there was one.
    :param codes: FeedAMP's own error codes, as the answer gave them.
    :param request_id: The server's id of the request, where it sent one.
    :param retry_after: Seconds that the server asked to wait, where it did.
    :param server_message: FeedAMP's own words, shortened. They may quote a customer, so they stand in no
        text, repr or pickle of the error: who shows them decides that.
    """

    #: Whether the same call can succeed later without a person changing anything.
    retryable = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        codes: Sequence[str] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
        server_message: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.codes = tuple(codes)
        self.request_id = request_id
        self.retry_after = retry_after
        self.server_message = server_message

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what a pickle holds: everything but the server's own words."""
        return type(self), self.args, {**self.__dict__, "server_message": ""}


class ConfigurationError(FeedAmpError):
    """The Airflow connection or the ``[feedamp]`` configuration cannot be used as it is."""


class InputError(FeedAmpError, ValueError):
    """An argument, a filter, an order or a source was refused before anything was sent."""


class ApiError(FeedAmpError):
    """FeedAMP answered a call of its order API with an error, or with something that cannot be read."""

    @property
    def is_about_one(self) -> bool:
        """Whether FeedAMP refused the one order, refund or return, and may well take the others."""
        return self.status in _ABOUT_ONE


class BadRequestError(ApiError):
    """FeedAMP refused what was sent (400 and any 4xx without a class of its own); repeating cannot help."""


class AuthenticationError(ApiError):
    """FeedAMP refused a fresh access token (401) or the client (403): the token's age is not the matter."""


class NotFoundError(ApiError):
    """FeedAMP does not know the order, refund or return in this seller's account (404)."""


class RateLimitError(ApiError):
    """FeedAMP asks for fewer requests (429), and the retries of this call are used up."""

    retryable = True


class ServerError(ApiError):
    """FeedAMP failed (5xx), has not begun (408, 425), or refuses all; the call has no retries left."""

    retryable = True


class UnreachableError(ApiError):
    """No answer came from FeedAMP: name look-up, connection, TLS, time-out or a connection cut off."""

    retryable = True


class UnreadableError(ApiError):
    """FeedAMP answered with half a JSON, a web page, or a page of a list that leads nowhere."""

    retryable = True  # Something between here and FeedAMP answered, or the answer was cut: it passes.


class TokenError(FeedAmpError):
    """Base of what can go wrong while an access token is obtained."""


class ReauthorizationRequiredError(TokenError):
    """The seller's refresh token was refused: a person has to authorise this seller again."""


class ClientRefusedError(TokenError):
    """FeedAMP refused the Client ID or the Client Secret: one error for all sellers of the client."""


class CodeRefusedError(TokenError):
    """FeedAMP refused an authorisation code: they are single-use and short-lived, so ask for a new one."""


class RedirectRefusedError(TokenError):
    """The URL that a browser came back to does not end the authorisation that is asked about."""


class TokenNotRenewedError(TokenError):
    """The access token could not be renewed now, and nothing is lost: a later try can succeed."""

    retryable = True


class NotProcessedError(TokenNotRenewedError):
    """The token endpoint was not reached, or asks to come back later: the refresh token was not spent."""


class AnswerLostError(TokenNotRenewedError):
    """The token endpoint may have spent the refresh token or the code, and its answer is unknown."""


class TokenBusyError(TokenNotRenewedError):
    """Another thread or worker is renewing the token, and waiting for it took too long."""


class TokenStoreError(TokenError):
    """The token store cannot be read, cannot be written, or holds something that is not a token record."""

    retryable = True


class TokenRecordError(TokenStoreError):
    """The store holds something for this seller that is not a token record this version can use."""

    retryable = False


class TokenConflictError(TokenStoreError):
    """The stored record is not the one that a conditional write expected."""


class ContentionError(TokenStoreError):
    """The store's database let other statements go first, again and again; nothing was changed."""


class TooManyFailuresError(FeedAmpError):
    """More orders, refunds or returns failed than ``max_failures`` allows; all the others are done."""


class RefundsNotProcessedError(FeedAmpError):
    """The task's own function raised for some refunds, which stay as they were; the others are done."""

    retryable = True  # They are handed to it again.


class RejectsFileError(FeedAmpError):
    """The rejects file could not be written, so the run stopped before an order was lost from the account."""

    retryable = True  # A full disk or a storage that was away can be better by the next try.


class SourceUnavailableError(FeedAmpError):
    """The storage or database that orders are read from is away, or the rows of a query found no room."""

    retryable = True  # They come back; what was placed until then is placed again with the same content.


class ReturnOverdueError(FeedAmpError):
    """The day by which the seller had to respond to a return is over, and the seller has not."""


class TriggerEventError(FeedAmpError):
    """A deferred task was resumed without an answer that it understands; what it waits for is not known."""

    retryable = True  # The next try asks FeedAMP anew.


class StoppedError(FeedAmpError):
    """A task over many was told to stop and stopped between two of them; what is done is accounted for."""

    retryable = True  # Whoever stopped it for good has told Airflow so; after a lost worker it should go on.


class DestinationError(FeedAmpError):
    """The file of an export could not be written to its end; nothing is left of it."""

    retryable = True  # A full disk or a storage that was away can be better by the next try.


def documentation() -> str | None:
    """Return the address of the documentation's pages, ending in ``/``; None if the package names none."""
    from importlib.metadata import metadata  # slow to import, and needed for an error alone

    described = metadata("airflow-provider-feedamp").get_all("Project-URL") or []
    return dict(each.split(", ", 1) for each in described).get("Documentation")


def page_of(error: FeedAmpError) -> str:
    """Return where the documentation says what to do about an error."""
    anchor = type(error).__name__.lower()
    address = documentation()
    return f"{address}errors.html#{anchor}" if address else f"docs/errors.md#{anchor}"


def counted(number: int, things: str) -> str:
    """Return a number with what is counted, as a message says it: ``1 order``, ``2 orders``.

    :param things: What is counted, in the plural that ends in s.
    """
    return f"{number} {things.removesuffix('s') if number == 1 else things}"


def forget_variables(error: BaseException | None) -> None:
    """Empty the frames that an error and its causes have passed through.

    Airflow 3 shows local variables with a traceback on a console, and some of them are tokens.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
