"""The sandbox's description of itself, and schemathesis' odd requests made from it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_feedamp.sandbox.endpoints import OPERATIONS
from airflow_provider_feedamp.sandbox.server import serve
from airflow_provider_feedamp.sandbox.state import reader
from tests.sandbox.caller import Caller, return_

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

# Those that end tokens, inject faults or begin again would make other calls fail, as they should.
PLAYED = ["acknowledge", "ship", "cancel", "resolve-errors", "create-refund", "resolve-refund-errors"]
PLAYED += ["authorize-return", "enter-return-amounts", "connect", "tokens", "orders", "refunds", "returns"]
EXISTING = {
    "mp_order_number": "600A",
    "feedamp_refund_id": "1001",
    "mp_return_number": "RET-1",
    "seller": "hooli",
}
ODD = settings(
    max_examples=15, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def running() -> Iterator[RunningSandbox]:
    with serve() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def caller(running: RunningSandbox) -> Caller:
    """Have an order, a refund and a return, so that not all that is asked for is missing."""
    caller = Caller(running, "hooli")
    caller.place()
    running.control.create_refund("hooli", "600A")
    caller.call("PUT", "/orders/600A/returns/RET-1", json=return_())
    return caller


def origin(sandbox: RunningSandbox) -> str:
    return sandbox.base_url.removesuffix("/api/v1")


def described(sandbox: RunningSandbox) -> dict[str, Any]:
    answer: dict[str, Any] = requests.get(origin(sandbox) + "/openapi.json", timeout=30).json()
    return answer


def operations(description: dict[str, Any], tag: str | None = None) -> dict[str, tuple[str, str]]:
    """Return method and path of the operations by id."""
    return {
        operation["operationId"]: (method, path)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
        if tag is None or operation["tags"] == [tag]
    }


def test_every_endpoint_of_the_api_is_described(running: RunningSandbox) -> None:
    description = described(running)
    api = [each for each in operations(description).values() if each[1].startswith("/api/v1")]
    assert len(api) == len(OPERATIONS) == 19
    for operation in OPERATIONS:
        method, path = operations(description)[operation.name]
        told = description["paths"][path][method]
        assert re.search(r"\[[DIU]\]", told["description"])
        assert ("security" in told) is (operation.tags != ["oauth"])
        assert ("404" in told["responses"]) is ("{" in path)
        named = {each["name"] for each in told["parameters"] if each["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))


def test_every_schema_that_is_referred_to_exists(running: RunningSandbox) -> None:
    description = described(running)
    named = set(re.findall(r"#/components/schemas/(\w+)", str(description)))
    assert named <= description["components"]["schemas"].keys()
    assert {"Order", "Refund", "Return", "Problems"} <= named


def test_the_guessed_paths_are_described_as_the_settings_have_them(sandbox: RunningSandbox) -> None:
    sandbox.control.change(refund_complete_path="done")
    paths = described(sandbox)["paths"]
    assert "/api/v1/orders/{mp_order_number}/refunds/{feedamp_refund_id}/done" in paths
    assert not any("tail" in path for path in paths)


def test_the_description_can_be_read_as_a_page(running: RunningSandbox) -> None:
    answer = requests.get(origin(running) + "/docs", timeout=30)
    assert (answer.status_code, "/openapi.json" in answer.text) == (200, True)


@pytest.fixture(scope="module")
def schema(running: RunningSandbox) -> Any:
    return pytest.importorskip("schemathesis").openapi.from_dict(described(running))


@pytest.mark.parametrize("name", [each.name for each in OPERATIONS])
def test_odd_requests_are_answered_as_described(
    running: RunningSandbox, caller: Caller, schema: Any, name: str
) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi import checks

    kept = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    method, path = operations(schema.raw_schema)[name]
    fits, does_not = (schema[path][method].as_strategy(generation_mode=mode) for mode in GenerationMode)

    @ODD
    @given(case=fits | does_not, exists=st.sampled_from([True, True, False]))
    def ask(case: Any, exists: bool) -> None:
        if exists:
            aim_at_what_exists(case)
        case.call_and_validate(
            base_url=origin(running), session=caller.session, checks=kept, allow_redirects=False
        )

    ask()


@pytest.mark.parametrize("name", PLAYED)
def test_odd_bodies_of_the_control_surface_cause_no_server_error(
    running: RunningSandbox, caller: Caller, name: str
) -> None:
    fields = reader(name).json_schema(ref_template="#/components/schemas/{model}")
    components = {"schemas": fields.pop("$defs", {})}
    fields["properties"] |= {"self": {"type": "null"}, "seller": {"type": "string"}}
    path, content = f"/_sandbox/{name}", {"application/json": {"schema": fields}}
    described = {"post": {"requestBody": {"required": True, "content": content}, "responses": {}}}
    surface = {"openapi": "3.1.0", "info": {"title": "", "version": ""}, "paths": {path: described}}
    schema = pytest.importorskip("schemathesis").openapi.from_dict({**surface, "components": components})

    @ODD
    @given(case=schema[path]["post"].as_strategy())
    def ask(case: Any) -> None:
        aim_at_what_exists(case)
        answer = case.call(base_url=origin(running), session=caller.session)
        assert answer.status_code < 500

    ask()


def aim_at_what_exists(case: Any) -> None:
    for place in (case.path_parameters, case.body):
        if isinstance(place, dict):
            place.update({key: value for key, value in EXISTING.items() if key in place})
            for line in place.get("return_lines") or ():
                if isinstance(line, dict) and "mp_order_line_number" in line:
                    line["mp_order_line_number"] = "L1"
