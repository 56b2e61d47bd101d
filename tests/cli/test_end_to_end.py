"""The command as its user runs it: processes of their own, a real metadata database, the `variable` store."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import requests
from airflow import __version__ as airflow_version
from cryptography.fernet import Fernet
from packaging.version import Version

from tests.airflow_runs import FERNET_KEY, AirflowHome, make_airflow
from tests.cli.support import browse, run
from tests.house import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.cli.support import Shop

#: Airflow 3.0 writes Variables into a log in clear, so that the store needs a key of our own from the start.
IS_3_0 = Version(airflow_version).release[:2] == (3, 0)
FIRST = Fernet.generate_key().decode()
FEEDAMP = [sys.executable, "-m", "airflow_provider_feedamp"]


class Operator:
    """A person at the deployment's shell, who remembers all that was shown."""

    def __init__(self, home: AirflowHome) -> None:
        self.environment = home.settings({})
        self.seen = self.told = ""

    def runs(self, *arguments: str, code: int = 0) -> str:
        """Run the command to its end and return its standard output."""
        done = subprocess.run(
            [*FEEDAMP, *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        self.seen += done.stdout + done.stderr
        self.told += done.stderr
        assert done.returncode == code, done.stderr
        return done.stdout

    def authorises(self, seller: str) -> None:
        """Run `sellers authorize`, and be the seller's browser."""
        command = [*FEEDAMP, "sellers", "authorize", seller, "--force"]
        with subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            url = next(line.strip() for line in process.stdout if "/authorize?" in line)
            page = requests.get(browse(f"{url}&sandbox_seller={seller}"), timeout=30)
            output, errors = process.communicate(timeout=60)
        self.seen += url + output + errors
        self.told += errors
        assert process.returncode == 0, errors
        assert "You can close this window" in page.text

    def list(self) -> dict[str, dict[str, Any]]:
        return {row["seller"]: row for row in json.loads(self.runs("sellers", "list", "--json"))}


@pytest.mark.processes
@pytest.mark.timeout(400)
def test_a_seller_is_authorised_listed_exported_forgotten_imported_and_refreshed(
    sandbox: RunningSandbox, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sandbox.control.change(approval="auto", rotation="revoke_family")
    home = make_airflow(tmp_path_factory, tmp_path, {})
    connection = sandbox.connection("hooli", refresh_token=None)
    home.call("airflow", "connections", "add", "feedamp_default", "--conn-json", json.dumps(connection))
    (tmp_path / "key").write_text(Fernet.generate_key().decode())
    move = [str(tmp_path / "tokens.json"), "--key-file", str(tmp_path / "key")]
    person = Operator(home)

    person.authorises("globex")
    before = person.list()
    person.runs("tokens", "export", *move)
    person.runs("sellers", "forget", "globex", "--yes")
    imported = person.runs("tokens", "import", *move)
    after = person.list()
    person.runs("sellers", "refresh", "globex")

    assert (before["globex"]["state"], before["globex"]["generation"]) == ("active", 1)
    assert imported == "1 imported, 0 already here, 0 refused.\n"
    assert after == before
    lines = person.told.splitlines()
    assert "The browser is back; looking at the account." in lines
    # What the provider tells stands there once, and plain: without a time, a level and a place in the code.
    told = [line for line in lines if "generation" in line]
    assert told[0] == "Seller 'globex' is authorised: generation 1."
    assert told[1].startswith("Renewed the access token of seller 'globex': generation 2")
    assert len(told) == 2
    assert [line for line in lines if ".py" in line] == []
    assert sandbox.control.counters()["token_posts"] == 2
    tokens = [*sandbox.control.access_tokens("globex"), *sandbox.control.refresh_tokens("globex")]
    assert len(tokens) >= 2
    assert [token for token in tokens if token in person.seen + home.dump()] == []


@pytest.mark.processes
@pytest.mark.timeout(400)
def test_variables_come_under_a_key_of_our_own_and_stay_where_the_key_is_missing(
    sandbox: RunningSandbox, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sandbox.control.change(approval="auto", rotation="revoke_family")
    home = make_airflow(tmp_path_factory, tmp_path, {"feedamp_default": sandbox.connection("hooli")})
    person = Operator(home)
    mine, other = Fernet.generate_key().decode(), Fernet.generate_key().decode()

    def has(own: str, airflows: str = FERNET_KEY) -> None:
        """Go on as a process with these keys."""
        person.environment["AIRFLOW__FEEDAMP__ENCRYPTION_KEY"] = own
        person.environment["AIRFLOW__CORE__FERNET_KEY"] = airflows

    def stands() -> tuple[str, str | None]:
        row = person.list()["hooli"]
        return row["state"], row["key"]

    has(FIRST if IS_3_0 else "")
    person.runs("sellers", "refresh", "hooli")
    has(FIRST if IS_3_0 else "", airflows=other)
    under_another_fernet_key = stands()
    person.runs("sellers", "forget", "hooli", "--yes", code=1)
    has(f"{mine},{FIRST}")
    before, written, after = stands(), person.runs("tokens", "reencrypt"), stands()
    has("")
    without_our_key = stands()
    person.runs("sellers", "forget", "hooli", "--yes", "--force")

    # The connection holds a refresh token for hooli: "new" here would have a task spend it.
    assert under_another_fernet_key == ("unreadable", None)
    assert before == ("active", "encryption_key 2" if IS_3_0 else None)
    assert (written, after) == ("1 written, 0 skipped, 0 failed.\n", ("active", "encryption_key"))
    assert without_our_key == ("unreadable", None)
    assert stands() == ("new", None)
    assert sandbox.control.counters()["token_posts"] == 1


def test_orders_are_placed_and_accounted_for(shop: Shop, source: str, tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.ndjson"

    result = run("orders", "import", source, "--rejects", str(rejects), "--max-failures", "1", code=0)

    assert "read 5, placed 4 (inserted 4, updated 0), rejected 1" in result.stdout
    assert f"Rejects, whole and with reasons: {rejects}" in result.stdout
    assert sorted(each["mp_order_number"] for each in shop.sandbox.control.orders("hooli")) == [
        "A-1",
        "A-2",
        "A-4",
        "A-5",
    ]
    assert [json.loads(line)["line"] for line in rejects.read_text().splitlines()] == [3]
    assert "Secretname" not in result.output
    assert [token for token in shop.sandbox.control.access_tokens("hooli") if token in result.output] == []
