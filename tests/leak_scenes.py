"""One scene for each thing that goes wrong, played through the hook and the operators."""

from __future__ import annotations

import json
import threading
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_feedamp import exceptions
from airflow_provider_feedamp.bulk.sql import QueryInput
from airflow_provider_feedamp.hooks.authorisation import Authorisation
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook, custodian_of
from airflow_provider_feedamp.operators.order_states import FeedAmpCloseOrdersOperator
from airflow_provider_feedamp.operators.orders import FeedAmpPlaceOrdersOperator
from airflow_provider_feedamp.operators.refunds import (
    FeedAmpCompleteRefundsOperator,
    FeedAmpProcessRefundsOperator,
)
from airflow_provider_feedamp.sensors.returns import FeedAmpReturnsSensor
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.records import TokenKey, TokenRecord
from airflow_provider_feedamp.tokens.store import MemoryStore, open_store
from airflow_provider_feedamp.transfers.object_storage import FeedAmpToObjectStorageOperator
from tests.leaks import WRONG_SECRET
from tests.sandbox.caller import order, return_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest

    from airflow_provider_feedamp.exceptions import FeedAmpError
    from airflow_provider_feedamp.sandbox.server import RunningSandbox

HERE = "tests.leak_scenes"


class QuotingStore(MemoryStore):
    """A store whose own errors quote what they were asked to keep."""

    broken = True

    def write(self, record: TokenRecord, *, expected: int | None) -> TokenRecord:
        if self.broken and record.generation:
            raise RuntimeError(record.to_json())
        return super().write(record, expected=expected)


class DamagedStore(MemoryStore):
    """A store that gives back half of what it was given."""

    def read(self, key: TokenKey) -> TokenRecord | None:
        record = super().read(key)
        return record and TokenRecord.from_json(record.to_json()[:-9], key)


class ClosedStore(MemoryStore):
    """A store that cannot be written."""

    def write(self, record: TokenRecord, *, expected: int | None) -> TokenRecord:
        raise exceptions.TokenStoreError("The store is closed.")


class ContendedStore(MemoryStore):
    """A store whose database lets others go first."""

    def read(self, key: TokenKey) -> TokenRecord | None:
        raise exceptions.ContentionError(f"The database did not read the record of {key.seller!r}.")


class Scene:
    """A sandbox and the connection to it, for one thing that goes wrong."""

    def __init__(self, sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.sandbox = sandbox
        self.folder = folder
        self.code = ""
        self.control = sandbox.control
        self.monkeypatch = monkeypatch
        self.control.reset()
        CACHE.clear()
        open_store.cache_clear()
        # No pause between the tries: the tests wait for nothing.
        monkeypatch.setattr("airflow_provider_feedamp.tokens.renewal._REPLAY_PAUSE", (0.0, 0.0))
        monkeypatch.setattr("airflow_provider_feedamp.tokens.renewal._PAUSES", ())
        self.connect()

    def connect(self, *, store: str = "memory", **changes: Any) -> FeedAmpHook:
        connection = self.sandbox.connection("hooli") | changes
        self.monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", store)
        self.monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps(connection))
        return FeedAmpHook()

    def report(self) -> None:
        FeedAmpHook().client.orders.report_errors("A", [{"code": "X", "message": "m"}])


def configuration(scene: Scene) -> None:
    _ = scene.connect(host=f"https://client:{WRONG_SECRET}@feedamp.example").config


def wrong_host(scene: Scene) -> None:
    FeedAmpHook().get_conn().get("http://127.0.0.1:1/orders")


def bad_request(scene: Scene) -> None:
    scene.control.fault("http_error", on="data", status=400)
    scene.report()


def authentication(scene: Scene) -> None:
    scene.control.fault("http_error", on="data", status=401, times=None)
    FeedAmpHook().client.orders.get("A")


def not_found(scene: Scene) -> None:
    FeedAmpHook().client.orders.get("A")


def rate_limit(scene: Scene) -> None:
    scene.control.fault("http_error", on="data", status=429, wait=3600)  # longer than a call waits
    scene.report()


def server(scene: Scene) -> None:
    scene.control.fault("http_error", on="data", status=500)
    scene.report()


def unreachable(scene: Scene) -> None:
    scene.control.fault("drop", on="data")
    scene.report()


def unreadable(scene: Scene) -> None:
    scene.control.fault("odd_body", on="data", body="html")
    list(FeedAmpHook().client.orders.list())


def too_long(scene: Scene) -> None:
    scene.monkeypatch.setattr("airflow_provider_feedamp.api.wire.LONGEST_ANSWER", 9)
    scene.monkeypatch.setattr("airflow_provider_feedamp.api.wire._PIECE", 9)
    list(FeedAmpHook().client.orders.list())


def reauthorization(scene: Scene) -> None:
    scene.control.revoke("hooli")
    FeedAmpHook().get_access_token()


def client_refused(scene: Scene) -> None:
    scene.connect(password=WRONG_SECRET).get_access_token()


def code_refused(scene: Scene) -> None:
    hook = FeedAmpHook(seller="globex")
    scene.code = scene.control.authorize("globex")
    hook.exchange_code(scene.code)
    hook.exchange_code(scene.code)


def redirect_refused(scene: Scene) -> None:
    authorisation = Authorisation(FeedAmpHook(seller="globex"), "somebody")
    started = authorisation.start("http://127.0.0.1/")
    scene.code = scene.control.authorize("globex")
    redirect = {"code": scene.code, "state": started.state}
    authorisation.redeem(redirect)
    authorisation.redeem(redirect)


def asked_to_come_back(scene: Scene) -> None:
    scene.control.fault("http_error", on="token", status=503, wait=900)
    FeedAmpHook().get_access_token()


def answer_lost(scene: Scene) -> None:
    scene.control.fault("drop", on="token", times=2)
    FeedAmpHook().get_access_token()


def answer_odd(scene: Scene) -> None:
    scene.control.fault("odd_body", on="token", body="truncated", times=2)
    scene.control.change(rotation="grace")
    FeedAmpHook().get_access_token()


def no_access_token(scene: Scene) -> None:
    scene.control.fault("odd_body", on="token", remove=["access_token"])
    FeedAmpHook().get_access_token()


def busy(scene: Scene) -> None:
    scene.monkeypatch.setenv("AIRFLOW__FEEDAMP__LOCK_WAIT", "0")
    custodian = custodian_of(FeedAmpHook().config, "hooli")
    with custodian.store.lock(custodian.key, wait=0, stop=threading.Event()):
        FeedAmpHook().get_access_token()


def store_closed(scene: Scene) -> None:
    scene.connect(store=f"{HERE}.ClosedStore").get_access_token()


def contended(scene: Scene) -> None:
    scene.connect(store=f"{HERE}.ContendedStore").get_access_token()


def record_damaged(scene: Scene) -> None:
    scene.connect(store=f"{HERE}.DamagedStore").get_access_token()
    CACHE.clear()
    FeedAmpHook().get_access_token()


def conflict(scene: Scene) -> None:
    hook = FeedAmpHook()
    hook.get_access_token()
    custodian = custodian_of(hook.config, "hooli")
    record = custodian.record()
    assert record is not None
    custodian.store.write(record, expected=99)


def too_many_rejects(scene: Scene) -> None:
    FeedAmpPlaceOrdersOperator(task_id="place", orders=[{"mp_order_number": "A"}]).execute({})


def too_many_failures(scene: Scene) -> None:
    refunds = [{"mp_order_number": "A", "feedamp_refund_id": 1}]
    FeedAmpCompleteRefundsOperator(task_id="complete", refunds=refunds).execute({})


def refunds_not_processed(scene: Scene) -> None:
    order = {
        "mp_order_number": "A",
        "sales_channel": "US",
        "customer": {},
        "purchase_date": "2024-05-01T23:52:01Z",
        "currency": "USD",
        "shipping_address": {},
        "order_lines": [{"mp_line_number": "1", "sku": "S", "quantity": 1, "unit_price": 1.5}],
        "marketplace_state": "AWAITING_SHIPMENT",
    }
    hook = FeedAmpHook()
    hook.client.orders.place(order)
    scene.control.create_refund("hooli", "A")

    def pay(_: object) -> None:
        raise RuntimeError(hook.get_access_token())

    FeedAmpProcessRefundsOperator(task_id="process", process=pay).execute({})


def rejects_not_written(scene: Scene) -> None:
    def full(path: str, mode: str) -> IO[bytes]:
        return open("/dev/full" if mode == "wb" else path, mode, buffering=0)

    scene.monkeypatch.setattr("airflow_provider_feedamp.bulk.rejects._private", full)
    orders, rejects = [{"mp_order_number": "A"}], str(scene.folder / "rejects.ndjson")
    FeedAmpPlaceOrdersOperator(task_id="place", orders=orders, rejects=rejects).execute({})


def import_stopped(scene: Scene) -> None:
    def orders() -> Iterator[dict[str, str]]:
        operator.on_kill()
        yield {"mp_order_number": "A"}

    operator = FeedAmpPlaceOrdersOperator(task_id="place", orders=orders())  # type: ignore[arg-type]
    operator.execute({})


def source_gone(scene: Scene) -> None:
    unreachable = f"sqlite:///{scene.folder}/no/such/folder.db"
    scene.monkeypatch.setenv("AIRFLOW_CONN_ORDERS", unreachable)
    QueryInput("SELECT 1", "orders").open()


def destination_full(scene: Scene) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    scene.monkeypatch.setattr("airflow_provider_feedamp.transfers.ndjson_file.os.fsync", full)
    destination = str(scene.folder / "orders.ndjson")
    FeedAmpToObjectStorageOperator(task_id="export", resource="orders", destination=destination).execute({})


def stopped(scene: Scene) -> None:
    task = FeedAmpCloseOrdersOperator(task_id="close", mp_order_numbers=["A"])
    task.on_kill()
    task.execute({})


def return_overdue(scene: Scene) -> None:
    client = FeedAmpHook().client
    client.orders.place(order("A"))
    dates = {"request_date": "2020-01-01", "respond_date": "2020-01-08"}
    client.returns.create("A", "R", {"return_lines": [return_line()], **dates})
    numbers = {"mp_order_number": "A", "mp_return_number": "R"}
    FeedAmpReturnsSensor(task_id="wait", returns=[numbers]).execute({})


def no_event(scene: Scene) -> None:
    FeedAmpReturnsSensor(task_id="wait", returns=[]).execute_complete({}, None)


SCENES: dict[Callable[[Scene], None], type[FeedAmpError]] = {
    configuration: exceptions.ConfigurationError,
    wrong_host: exceptions.InputError,
    bad_request: exceptions.BadRequestError,
    authentication: exceptions.AuthenticationError,
    not_found: exceptions.NotFoundError,
    rate_limit: exceptions.RateLimitError,
    server: exceptions.ServerError,
    unreachable: exceptions.UnreachableError,
    unreadable: exceptions.UnreadableError,
    too_long: exceptions.ApiError,
    reauthorization: exceptions.ReauthorizationRequiredError,
    client_refused: exceptions.ClientRefusedError,
    code_refused: exceptions.CodeRefusedError,
    redirect_refused: exceptions.RedirectRefusedError,
    asked_to_come_back: exceptions.NotProcessedError,
    answer_lost: exceptions.AnswerLostError,
    answer_odd: exceptions.AnswerLostError,
    no_access_token: exceptions.TokenNotRenewedError,
    busy: exceptions.TokenBusyError,
    store_closed: exceptions.TokenStoreError,
    contended: exceptions.ContentionError,
    record_damaged: exceptions.TokenRecordError,
    conflict: exceptions.TokenConflictError,
    too_many_rejects: exceptions.TooManyFailuresError,
    too_many_failures: exceptions.TooManyFailuresError,
    refunds_not_processed: exceptions.RefundsNotProcessedError,
    rejects_not_written: exceptions.RejectsFileError,
    import_stopped: exceptions.StoppedError,
    stopped: exceptions.StoppedError,
    source_gone: exceptions.SourceUnavailableError,
    return_overdue: exceptions.ReturnOverdueError,
    no_event: exceptions.TriggerEventError,
    destination_full: exceptions.DestinationError,
}
