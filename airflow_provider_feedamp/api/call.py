"""One call of the client's own, ready to be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from requests import PreparedRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_feedamp.api.pacing import Pacer


class Call(PreparedRequest):
    """A prepared request made of parts that need no more preparing.

    :param method: HTTP method.
    :param url: The whole URL, escaped.
    :param headers: All headers but the bearer and those about the body.
    :param body: JSON, or None.
    :param pacers: What each sending of this call waits for, a repeated one too.
    """

    def __init__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, Any],
        body: bytes | None,
        pacers: tuple[Pacer, ...] = (),
    ) -> None:
        super().__init__()
        self.method = method
        self.url = url
        # Not blind to case, as all of them are written here: that is several times as fast.
        self.headers = dict(headers)  # type: ignore[assignment]
        self.body = body
        if body is not None:
            self.headers["Content-Type"] = "application/json"
        if body is not None or method != "GET":
            self.headers["Content-Length"] = str(len(body or b""))
        self.pacers = pacers
