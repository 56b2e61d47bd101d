"""What the tests with worker processes share: a seller at a FeedAMP, whose token the workers renew."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.faults.conftest import Deployment, Result

#: More than an access token lives.
LATER = 4000.0


def new_name() -> str:
    """Return a name that no other test has: a sandbox may get the port, and so the keys, of another one."""
    return f"hooli {uuid4().hex}"


@dataclass
class Seller:
    """One seller, in one store, at one FeedAMP."""

    deployment: Deployment
    sandbox: RunningSandbox
    store: str
    name: str
    #: What each of the seller's jobs has besides.
    manner: dict[str, Any] = field(default_factory=dict)
    connection: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        if self.name not in self.sandbox.control.sellers():
            self.sandbox.control.connect(self.name)
        self.connection = self.sandbox.connection(self.name)

    def job(self, do: str, **details: Any) -> dict[str, Any]:
        """Return a job for this seller."""
        return {"do": do, "connection": self.connection, "store": self.store, **self.manner, **details}

    def begin(self) -> str:
        """Let a worker get the first token."""
        [result] = self.deployment.results(self.job("ask"))
        assert result["errors"] == []
        token: str = result["tokens"][0]
        return token

    def record(self) -> Result:
        """Return the stored record."""
        [record] = self.deployment.results(self.job("look"))
        return record

    def posts(self) -> int:
        """Return how many token calls FeedAMP has seen."""
        return int(self.sandbox.control.counters()["token_posts"])

    def posts_at_once(self) -> int:
        """Return how many token calls were in flight together at the most."""
        return int(self.sandbox.control.counters()["token_posts_in_flight_max"])

    def lost(self) -> bool:
        """Say whether the store holds no refresh token that FeedAMP accepts."""
        return self.record()["refresh_token"] not in self.sandbox.control.refresh_tokens(self.name)
