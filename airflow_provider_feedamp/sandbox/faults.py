"""Faults that the sandbox commits on purpose, and the queue that decides which call meets which."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Collection

FaultKind = Literal["drop", "lose_answer", "slow", "http_error", "odd_body"]
OddBody = Literal["json", "html", "empty", "truncated", "error", "list"]
WaitStyle = Literal["seconds", "date", "reset"]


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong.

    :param kind: ``drop`` cuts the connection before the request is processed; ``lose_answer`` processes it
        and cuts the connection without answering; ``slow`` answers late; ``http_error`` answers ``status``;
        ``odd_body`` spoils the body of the real answer.
    :param on: ``token``, ``data`` (every call with a bearer), a resource (``orders``) or one operation
        (``place_order``).
    :param times: How many calls meet it; None for all until the faults are cleared.
    :param every: Only every n-th matching call meets it.
    :param seller: Only this seller's data calls meet it.
    :param status: Status of ``http_error``.
    :param body: Body of ``http_error`` and ``odd_body``; ``json`` is the usual one, ``error`` an error object
        under the unchanged status.
    :param headers: Headers to add to ``http_error``.
    :param wait: Seconds that ``http_error`` asks to wait, in the headers of ``wait_style``.
    :param wait_style: ``Retry-After`` in seconds, ``Retry-After`` as a date, or ``X-Rate-Limit-Reset``.
    :param processed: Whether ``http_error`` comes after the request was processed all the same.
    :param seconds: Delay before the answer (or the cut), for every kind.
    :param replace: Fields to put into the JSON object of ``odd_body``.
    :param remove: Fields to take out of it.
    """

    kind: FaultKind
    on: str = "token"
    times: int | None = 1
    every: int = 1
    seller: str | None = None
    status: int = 503
    body: OddBody = "json"
    headers: dict[str, str] = field(default_factory=dict)
    wait: float | None = None
    wait_style: WaitStyle = "seconds"
    processed: bool = False
    seconds: float = 0.0
    replace: dict[str, Any] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    seen: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        closed = (("kind", FaultKind), ("body", OddBody), ("wait_style", WaitStyle))
        for name, choices in closed:
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"Fault {name} is {getattr(self, name)!r}: choose one of {', '.join(get_args(choices))}"
                )
        if self.every < 1 or (self.times is not None and self.times < 1) or not 400 <= self.status <= 599:
            raise ValueError("Fault every and times must be 1 or more, and status from 400 to 599")

    def applies(self, names: Collection[str], seller: str | None) -> bool:
        """Say whether the fault is meant for a call that goes by these names."""
        return self.on in names and self.seller in (None, seller)


class FaultQueue:
    """The faults that wait for their calls; the first that applies is met, one per call."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Put a fault at the end of the queue."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Take all faults back."""
        self._faults.clear()

    def take(self, names: Collection[str], seller: str | None = None) -> Fault | None:
        """Return the fault that this call meets, if any, and count it as met."""
        for fault in self._faults:
            if not fault.applies(names, seller):
                continue
            fault.seen += 1
            if fault.seen % fault.every:
                continue
            if fault.times is not None:
                fault.times -= 1
                if fault.times == 0:
                    self._faults.remove(fault)
            return fault
        return None

    def waiting(self) -> list[dict[str, Any]]:
        """Return what is still in the queue."""
        return [dataclasses.asdict(fault) for fault in self._faults]
