"""Orders out of a database: SQLite, and real PostgreSQL and MariaDB servers."""

from __future__ import annotations

import gc
import json
import logging
import os
import sqlite3
import stat
import tempfile
import threading
import tracemalloc
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_feedamp.bulk import source as source_module
from airflow_provider_feedamp.bulk import sql as sql_source
from airflow_provider_feedamp.bulk.sql import QueryInput
from airflow_provider_feedamp.exceptions import ConfigurationError, InputError, SourceUnavailableError
from tests.databases import USER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_feedamp.bulk.source import SourceOrder
    from tests.databases import DatabaseServer

CONN_ID = "orders_db"
NO_ZONE = "is a time without a zone; give it one where it comes from"
PAUSE = threading.Event()  # for waits that nothing ends early
VARIABLE = f"AIRFLOW_CONN_{CONN_ID.upper()}"
#: A row of each number from 1, on any of the databases.
NUMBERS = """WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})
    SELECT n AS number, {other} AS other FROM numbers ORDER BY n"""


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set the connection to an empty SQLite file."""
    file = tmp_path / "orders.db"
    monkeypatch.setenv(VARIABLE, json.dumps({"conn_type": "sqlite", "host": str(file)}))
    return file


@pytest.fixture
def on_postgresql(postgresql: DatabaseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, postgresql.connection)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set the connection to each kind of database in turn, and return the kind."""
    if request.param == "sqlite":
        request.getfixturevalue("sqlite")
    else:
        monkeypatch.setenv(VARIABLE, request.getfixturevalue(request.param).connection)
    return str(request.param)


def read_sql(query: str, **options: Any) -> Iterator[SourceOrder]:
    return QueryInput(query, CONN_ID, **options).open()


def body(query: str) -> Any:
    """Return the body of the only order of a query, which has no problem."""
    [order] = read_sql(query)
    assert order.problem is None
    assert order.body is not None
    assert json.loads(order.body) == order.order
    return order.body


def test_one_column_of_json_is_the_order_byte_for_byte(database: str) -> None:
    text = '{"mp_order_number" : "A%1:x;", "price": 1.10, "big": 12345678901234567890.123456789}'

    assert body(f"SELECT '{text}' AS whole") == text.encode()


def test_several_columns_are_the_fields_of_the_order(database: str) -> None:
    query = """SELECT 'A"1' AS mp_order_number, 7 AS number, '{"full_name": "J", "spent": 1.10}' AS customer,
        '[{"unit_price": 1.10}]' AS order_lines, NULL AS location, '[note]' AS delivery_notes"""

    assert body(query) == (
        b'{"mp_order_number":"A\\"1","number":7,"customer":{"full_name": "J", "spent": 1.10},'
        b'"order_lines":[{"unit_price": 1.10}],"delivery_notes":"[note]"}'
    )


def test_rows_are_numbered_from_one_and_keep_their_order(database: str) -> None:
    query = NUMBERS.format(count=901, other="'x'")

    orders = list(read_sql(query))

    assert [(each.line, each.order["number"]) for each in orders if each.order] == [
        (number, number) for number in range(1, 902)
    ]


def test_what_no_database_is_asked_for_is_not_taken_as_a_parameter(database: str) -> None:
    assert body("SELECT 'a:b %s %(c)s 100%' AS one, '?' AS two WHERE 'x' LIKE '%x%'") == (
        b'{"one":"a:b %s %(c)s 100%","two":"?"}'
    )


@pytest.mark.parametrize(
    ("query", "written"),
    [
        ("SELECT 1 AS is_marketplace_fulfilled, 1 AS q", b'{"is_marketplace_fulfilled":true,"q":1}'),
        ("SELECT 0 AS is_marketplace_fulfilled, 0 AS q", b'{"is_marketplace_fulfilled":false,"q":0}'),
        ("SELECT 1.25 AS price, 'x' AS y", b'{"price":1.25,"y":"x"}'),
        ("SELECT 'A1' AS MP_ORDER_NUMBER, 'x' AS mixedCase", b'{"mp_order_number":"A1","mixedCase":"x"}'),
        ("SELECT CAST('{\"a\":1}' AS BLOB) AS whole", b'{"a":1}'),
        ("SELECT CAST('{\"a\":1}' AS BLOB) AS customer, 'x' AS y", b'{"customer":{"a":1},"y":"x"}'),
        ("SELECT '2026-01-02T03:04:05Z' AS t, 'x' AS y", b'{"t":"2026-01-02T03:04:05Z","y":"x"}'),
    ],
)  # fmt: skip
def test_a_value_of_sqlite_becomes_json(sqlite: Path, query: str, written: bytes) -> None:
    assert body(query) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("CAST('19.990' AS numeric(9, 3))", b"19.990"),
        ("CAST('123456789012345678901234567890.10' AS numeric)", b"123456789012345678901234567890.10"),
        ("CAST('1e3' AS numeric)", b"1000"),
        ("timestamptz '2026-03-08 01:59:59.9-05'", b'"2026-03-08T06:59:59Z"'),
        ("date '2026-03-08'", b'"2026-03-08"'),
        ("true", b"true"),
        ("uuid '00000000-0000-0000-0000-00000000000a'", b'"00000000-0000-0000-0000-00000000000a"'),
        ("""json '{"b" : 1.10}'""", b'{"b" : 1.10}'),
        ("""jsonb '{"big": 12345678901234567890.10}'""", b'{"big": 12345678901234567890.10}'),
        ("ARRAY[1.10, 2]", b"[1.10,2]"),
        ("CAST(NULL AS text)", None),
    ],
)
def test_a_value_of_postgresql_becomes_json(on_postgresql: None, value: str, written: bytes | None) -> None:
    expected = b'{"y":"x"}' if written is None else b'{"y":"x","value":' + written + b"}"

    assert body(f"SELECT 'x' AS y, {value} AS value") == expected


@pytest.mark.parametrize("kind", ["json", "jsonb"])
def test_an_order_of_a_json_type_keeps_its_numbers(on_postgresql: None, kind: str) -> None:
    assert body(f"""SELECT {kind} '{{"price": 1.10}}' AS whole""") == b'{"price": 1.10}'


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT NULL AS whole", "is NULL"),
        ("SELECT 'A1' AS whole", "is not JSON: Expecting value at character 1"),
        ("SELECT 5 AS whole", "is a number, not a JSON object"),
        (
            "SELECT '[1]' AS whole",
            "is a JSON array (an array of orders belongs in a .json file), not a JSON object",
        ),
        ("SELECT '{\"a\": NaN}' AS whole", "is not JSON: NaN is not a JSON number"),
        ("SELECT 'A1' AS a, '{\"b\": 1' AS customer", "column customer is not JSON"),
        ("SELECT 'A1' AS a, '{\"b\": Infinity}' AS customer", "column customer is not JSON"),
        ("SELECT 'A1' AS a, '1}, {\"b\": 2' AS location", "column location is not JSON"),
        ("SELECT 'A1' AS a, '' AS order_lines", "column order_lines is not JSON"),
        ("SELECT 'A1' AS a, 9e999 AS price", "column price is inf, which is not a JSON number"),
        (
            "SELECT 'A1' AS a, x'ff' AS notes",
            "column notes is of the type bytes, which an order does not have",
        ),
    ],
)
def test_a_row_that_cannot_be_an_order_is_told_and_the_others_go_on(
    sqlite: Path, query: str, reason: str
) -> None:
    first, second = read_sql(f"{query} UNION ALL {query}")

    assert first.problem == second.problem
    assert str(first.problem).removesuffix("; convert it where it comes from") == reason
    assert (first.line, second.line) == (1, 2)


def test_a_value_that_cannot_be_written_does_not_end_the_import() -> None:
    # PostgreSQL gives such a time in a session whose zone is east of UTC.
    first = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=9)))
    assert sql_source._written(["a", "b"], ["x", first]) == (
        "column b cannot be written: OverflowError",
        b'{"a":"x","b":"0001-01-01 00:00:00+09:00"}',
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("timestamp '2026-03-08 02:30:00'", NO_ZONE),
        ("CAST('NaN' AS numeric)", "is NaN, which is not a JSON number"),
        ("interval '1 day'", "is of the type timedelta, which an order does not have"),
        ("ARRAY[timestamp '2026-03-08 02:30:00']", NO_ZONE),
    ],
)
def test_a_value_of_postgresql_that_does_not_fit_is_told(
    on_postgresql: None, value: str, reason: str
) -> None:
    [order] = read_sql(f"SELECT 'x' AS y, {value} AS value")

    assert str(order.problem).removesuffix("; convert it where it comes from") == f"column value {reason}"


def test_a_row_that_does_not_fit_keeps_its_number_and_all_its_values_for_mending(on_postgresql: None) -> None:
    [order] = read_sql("SELECT 'A1' AS mp_order_number, timestamp '2026-03-08 02:30' AS t")

    assert order.order == {"mp_order_number": "A1", "t": "2026-03-08 02:30:00"}


def test_an_order_that_is_too_long_is_a_reject_of_which_the_beginning_is_kept(
    sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "MAX_ORDER_BYTES", 2000)

    [order] = read_sql("SELECT 'A1' AS a, hex(zeroblob(2000)) AS b")

    assert order.problem == "is longer than 2,000 bytes; only its beginning is kept here"
    assert (order.order, len(order.body or b"")) == (None, 1000)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT 1; SELECT 2", "must be one SQL statement; there are 2 in it"),
        (" -- nothing", "must be one SQL statement; there are 0 in it"),
        ("SELECT 1 AS a, 2 AS b, 3 AS a", "gives a more than once"),
        ("SELECT * FROM no_such_table", "failed: "),
        ("SELECT 1 AS a, 2 AS b WHERE 1 = 0", "found no order. If that is fine, set allow_empty=True."),
    ],
)
def test_a_query_that_is_of_no_use_is_refused_at_once(database: str, query: str, reason: str) -> None:
    with pytest.raises(InputError, match=CONN_ID) as caught:
        read_sql(query)

    assert reason in str(caught.value)


def test_its_name_in_the_log_is_the_connection_and_not_its_text() -> None:
    assert QueryInput("select 'Jane'", "shop").name == "the query on connection shop"


def test_a_second_statement_is_not_run(on_postgresql: None) -> None:
    with closing(connect()) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS kept; CREATE TABLE kept (n int)")
        connection.commit()

    with pytest.raises(InputError):
        read_sql("SELECT 1; DROP TABLE kept; COMMIT")

    with closing(connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM kept")


@pytest.mark.parametrize("end", ["", "; ", "; -- end;"])
def test_semicolons_that_end_nothing_are_fine(database: str, end: str) -> None:
    assert body(f"SELECT ';' AS a, 1 AS b{end}") == b'{"a":";","b":1}'


def test_a_statement_without_rows_is_refused_and_changes_nothing(sqlite: Path) -> None:
    with closing(sqlite3.connect(sqlite)) as connection:
        connection.executescript("CREATE TABLE numbers (n int); INSERT INTO numbers VALUES (1)")

    with pytest.raises(InputError, match=f"'{CONN_ID}' gives no rows. Name a SELECT"):
        read_sql("UPDATE numbers SET n = 2")

    with closing(sqlite3.connect(sqlite)) as connection:
        assert connection.execute("SELECT n FROM numbers").fetchall() == [(1,)]


def test_no_row_is_fine_where_that_is_said(database: str) -> None:
    assert list(read_sql("SELECT 1 AS a WHERE 1 = 0", allow_empty=True)) == []


def test_an_error_at_a_later_row_comes_before_the_first_order(on_postgresql: None) -> None:
    with pytest.raises(InputError, match=r"failed: division by zero"):
        read_sql("SELECT n AS a, 10 / (500 - n) AS b FROM generate_series(1, 900) AS n")

    assert sessions() == []


def test_the_databases_words_are_told_without_the_password(
    postgresql: DatabaseServer, on_postgresql: None
) -> None:
    password = json.loads(postgresql.connection)["password"]

    with pytest.raises(InputError) as caught:
        read_sql(f'SELECT * FROM "{password}"')  # noqa: S608

    assert str(caught.value).startswith(
        f'The query on the Airflow connection {CONN_ID!r} failed: relation "***" does not exist'
    )
    assert password not in f"{caught.value!r} {caught.value.__cause__}"


@pytest.mark.parametrize(
    ("connection", "reason"),
    [
        (
            {"conn_type": "http", "host": "x"},
            "is no SQL connection: its hook is no DbApiHook of .*common-sql",
        ),
        ({"conn_type": "nope"}, r"Is its provider installed \(apache-airflow-providers-nope\).*common-sql"),
        (None, "the query of the orders needs it"),
    ],
)
def test_a_connection_that_is_not_sql_or_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, connection: dict[str, str] | None, reason: str
) -> None:
    if connection:
        monkeypatch.setenv(VARIABLE, json.dumps(connection))

    with pytest.raises(ConfigurationError, match=f"'{CONN_ID}'.*{reason}"):
        read_sql("SELECT 1")


def test_a_database_that_cannot_be_reached_may_be_tried_again(
    postgresql: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = json.loads(postgresql.connection)
    monkeypatch.setenv(VARIABLE, json.dumps(there | {"port": 1}))

    with pytest.raises(SourceUnavailableError, match=f"'{CONN_ID}' cannot be read") as caught:
        read_sql("SELECT 1")

    assert caught.value.retryable
    assert there["password"] not in str(caught.value)


def test_a_database_that_goes_away_may_be_tried_again(on_postgresql: None) -> None:
    with pytest.raises(SourceUnavailableError):
        read_sql(
            "SELECT n AS a, pg_terminate_backend(CASE n WHEN 900 THEN pg_backend_pid() END) AS b "
            "FROM generate_series(1, 9000) AS n"
        )


def test_postgresql_has_no_transaction_open_while_orders_are_placed(
    postgresql: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, postgresql.connection)
    postgresql.administer(f"ALTER ROLE {USER} SET idle_in_transaction_session_timeout = '1s'")
    try:
        orders = read_sql("SELECT n AS a, 'x' AS b FROM generate_series(1, 1000) AS n")
        next(orders)
        PAUSE.wait(1.5)
        assert sum(1 for _ in orders) == 999
    finally:
        postgresql.administer(f"ALTER ROLE {USER} RESET ALL")


def test_mariadb_does_not_wait_for_a_reader_that_is_slow(
    mariadb: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, mariadb.connection)
    mariadb.administer("SET GLOBAL net_write_timeout = 1", "SET GLOBAL idle_transaction_timeout = 1")
    try:
        # More than the buffers between here and there hold.
        orders = read_sql(NUMBERS.format(count=900, other="repeat('x', 50000)"))
        next(orders)
        PAUSE.wait(2.5)
        assert sum(1 for _ in orders) == 899
    finally:
        mariadb.administer("SET GLOBAL net_write_timeout = 60", "SET GLOBAL idle_transaction_timeout = 0")


def test_the_rows_wait_in_a_file_without_a_name_that_its_owner_alone_may_read(
    sqlite: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spool"))
    (tmp_path / "spool").mkdir()
    source = QueryInput("SELECT 1 AS a, 2 AS b", CONN_ID)
    orders = source.open()

    status = os.fstat(source._rows._file.fileno())  # type: ignore[union-attr]

    assert (stat.S_IMODE(status.st_mode), status.st_nlink) == (0o600, 0)
    assert list((tmp_path / "spool").iterdir()) == []
    assert len(list(orders)) == 1
    file = source._rows._file  # type: ignore[union-attr]
    source.fingerprint(1)
    del source, orders
    gc.collect()  # on Airflow 2.11 a cycle of SQLAlchemy's holds on to it until then
    assert file.closed


def test_a_disk_without_room_for_the_rows_is_told_and_may_be_tried_again(
    on_postgresql: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "w+b"))

    with pytest.raises(SourceUnavailableError, match=r"No space left on device.*TMPDIR") as error:
        read_sql("SELECT n AS a, 'x' AS b FROM generate_series(1, 10000) AS n")

    assert error.value.retryable
    assert sessions() == []


class TestOnlyTheSameRowsAreKnownAgain:
    QUERY = "SELECT n, t FROM numbers ORDER BY n"

    @pytest.fixture(autouse=True)
    def numbers(self, sqlite: Path) -> Path:
        with closing(sqlite3.connect(sqlite)) as connection:
            connection.executescript(
                "CREATE TABLE numbers (n int, t text);"
                "INSERT INTO numbers VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')"
            )
        return sqlite

    def test_rows_that_stay_are_known_and_passed_over(self) -> None:
        again = QueryInput(self.QUERY, CONN_ID)

        assert again.fingerprint(2) == QueryInput(self.QUERY, CONN_ID).fingerprint(2) is not None
        assert [(order.place, order.order) for order in again.open(skip=2)] == [
            ("row 3", {"n": 3, "t": "c"}),
            ("row 4", {"n": 4, "t": "d"}),
        ]

    @pytest.mark.parametrize(
        ("change", "known"),
        [
            ("INSERT INTO numbers VALUES (5, 'e')", True),
            ("DELETE FROM numbers WHERE n = 4", True),
            ("UPDATE numbers SET t = 'x' WHERE n = 2", False),
            ("DELETE FROM numbers WHERE n = 1", False),
            ("INSERT INTO numbers VALUES (0, 'z')", False),
            ("DELETE FROM numbers WHERE n > 1", False),
        ],
    )
    def test_only_a_change_of_the_rows_before_makes_another_import(
        self, numbers: Path, change: str, known: bool
    ) -> None:
        before = QueryInput(self.QUERY, CONN_ID).fingerprint(2)
        with closing(sqlite3.connect(numbers)) as connection, connection:
            connection.execute(change)

        assert (QueryInput(self.QUERY, CONN_ID).fingerprint(2) == before) is known

    def test_what_was_digested_once_can_be_digested_again_from_the_start(self) -> None:
        source = QueryInput(self.QUERY, CONN_ID)
        wanted = source.fingerprint(1)
        source.fingerprint(3)

        assert source.fingerprint(1) == wanted

    @pytest.mark.parametrize(
        ("query", "ordered"),
        [
            ("SELECT n, t FROM numbers", False),
            ("SELECT n, t FROM (SELECT * FROM numbers ORDER BY n) AS x", False),
            ("SELECT n, row_number() OVER (ORDER BY n) AS t FROM numbers", False),
            ("SELECT n, 'order by' AS t FROM numbers -- order by n", False),
            ("SELECT n, t FROM numbers WHERE n > 0 order\n by n DESC LIMIT 3", True),
            ("WITH x AS (SELECT * FROM numbers) SELECT n, t FROM x ORDER BY n", True),
            ("SELECT n, t FROM numbers UNION SELECT 9, 'z' ORDER BY 1", True),
        ],
    )
    def test_without_an_order_of_the_result_no_row_is_known_again(
        self, query: str, ordered: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)

        assert (QueryInput(query, CONN_ID).fingerprint(1) is not None) is ordered
        assert ("says no ORDER BY" in caplog.text) is not ordered


@pytest.mark.once
def test_memory_does_not_grow_with_the_rows(sqlite: Path) -> None:
    def peak(count: int) -> int:
        query = NUMBERS.format(count=count, other="hex(zeroblob(250))")
        tracemalloc.start()
        assert sum(1 for _ in read_sql(query)) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)

    assert peak(20_000) < peak(1_000) + 300_000


class TestWithoutAnEngine:
    """A hook for which SQLAlchemy has no dialect: its own cursor is read."""

    @pytest.fixture
    def rows_read(self, sqlite: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Take the engine away, and note how many rows each call of the cursor was to give."""
        asked: list[int] = []

        class Cursor(sqlite3.Cursor):
            def fetchmany(self, size: int = -1) -> list[Any]:  # type: ignore[override]
                asked.append(size)
                return super().fetchmany(size)

        class Connection(sqlite3.Connection):
            def cursor(self, factory: Any = Cursor) -> Any:
                return super().cursor(factory)

        hook = type(BaseHook.get_connection(CONN_ID).get_hook())  # type: ignore[no-untyped-call]

        def no_engine(*_: Any, **__: Any) -> None:
            raise NotImplementedError

        monkeypatch.setattr(hook, "get_sqlalchemy_engine", no_engine)
        monkeypatch.setattr(hook, "get_conn", lambda _: sqlite3.connect(sqlite, factory=Connection))
        return asked

    def test_a_few_rows_are_read_at_a_time(self, rows_read: list[int]) -> None:
        query = NUMBERS.format(count=450, other="1")

        assert [order.line for order in read_sql(query)] == list(range(1, 451))
        assert rows_read == [sql_source._ROWS_AT_A_TIME] * 4

    @pytest.mark.parametrize(
        ("query", "reason"), [("SELEC", "failed: near"), ("CREATE TABLE a (b)", "gives no rows")]
    )
    def test_a_query_that_is_of_no_use_is_refused(
        self, rows_read: list[int], query: str, reason: str
    ) -> None:
        with pytest.raises(InputError, match=reason):
            read_sql(query)

    def test_a_database_that_cannot_be_reached_may_be_tried_again(
        self, rows_read: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gone(_: Any) -> None:
            raise OSError("out of ports")

        hook = type(BaseHook.get_connection(CONN_ID).get_hook())  # type: ignore[no-untyped-call]
        monkeypatch.setattr(hook, "get_conn", gone)

        with pytest.raises(SourceUnavailableError, match="cannot be read: out of ports"):
            read_sql("SELECT 1")


def connect() -> Any:
    """Return a connection of somebody else to PostgreSQL."""
    return BaseHook.get_connection(CONN_ID).get_hook().get_conn()  # type: ignore[no-untyped-call]


def sessions() -> list[tuple[str, str]]:
    """Return the state and the last statement of each session but the one that asks."""
    with closing(connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT state, query FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return list(cursor.fetchall())
