"""Run a local FeedAMP: ``python -m airflow_provider_feedamp.sandbox``."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.sandbox.settings import CHOICES, SandboxSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

_NEEDED = ("fastapi", "starlette", "uvicorn", "pydantic")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT.

    :param argv: Arguments; the process's own when None.
    :return: The exit code.
    """
    arguments = _parser().parse_args(argv)
    try:
        settings = _settings(arguments)
    except ValueError as error:
        return _fail(str(error))
    try:
        from airflow_provider_feedamp.sandbox.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        return _fail(f"The sandbox needs {error.name}: pip install 'airflow-provider-feedamp[sandbox]'")
    return _run(serve, settings, arguments)


def _run(serve: Callable[..., Any], settings: SandboxSettings, arguments: argparse.Namespace) -> int:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ended.set())
    ready_file: Path | None = arguments.ready_file
    try:
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
        with serve(settings, port=arguments.port) as sandbox:
            _announce(sandbox, settings, ready_file)
            ended.wait()
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
    except OSError as error:
        if error.filename is not None:
            return _fail(f"The sandbox cannot write {error.filename}: {error.strerror}")
        return _fail(
            f"The sandbox cannot serve on port {arguments.port}: {error.strerror}; port 0 takes a free one"
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    defaults = SandboxSettings()
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_feedamp.sandbox",
        description="Serve a local FeedAMP on 127.0.0.1 for tests and demos.",
    )
    parser.add_argument(
        "--port", type=_port, default=8470, help="port to listen on; 0 takes a free one (default 8470)"
    )
    parser.add_argument(
        "--seller", action="append", help="a seller's name; repeat for more (default acme, globex)"
    )
    parser.add_argument("--client-id", default=defaults.client_id, help="default %(default)s")
    parser.add_argument("--client-secret", default=defaults.client_secret, help="default %(default)s")
    parser.add_argument("--rotation", choices=CHOICES["rotation"], default=defaults.rotation)
    parser.add_argument(
        "--token-ttl", type=int, default=defaults.access_token_ttl, help="seconds (default 3600)"
    )
    parser.add_argument("--approval", choices=CHOICES["approval"], default=defaults.approval)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting, for example cursor_end=empty",
    )
    parser.add_argument(
        "--ready-file", type=Path, help="file to write when it serves: base URL and connections as JSON"
    )
    return parser


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _settings(arguments: argparse.Namespace) -> SandboxSettings:
    settings = SandboxSettings(
        client_id=arguments.client_id,
        client_secret=arguments.client_secret,
        sellers=tuple(arguments.seller or SandboxSettings().sellers),
        rotation=arguments.rotation,
        access_token_ttl=arguments.token_ttl,
        approval=arguments.approval,
    )
    settings.update(dict(_assignment(text) for text in arguments.set))
    return settings


def _assignment(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; the value as the setting's own type wants it."""
    name, _, value = text.partition("=")
    if isinstance(getattr(SandboxSettings(), name, None), str):
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _announce(sandbox: RunningSandbox, settings: SandboxSettings, ready_file: Path | None) -> None:
    connections = {seller: sandbox.connection(seller) for seller in settings.sellers}
    lines = [f"FeedAMP sandbox is ready on {sandbox.base_url} (end it with Ctrl-C)"]
    for seller, connection in connections.items():
        value = shlex.quote(json.dumps(connection))
        lines += [f"Connection of seller {seller}:", f"  export AIRFLOW_CONN_FEEDAMP_DEFAULT={value}"]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    if ready_file is not None:
        partial = ready_file.with_name(ready_file.name + ".partial")
        partial.touch(mode=0o600)
        partial.write_text(
            json.dumps({"base_url": sandbox.base_url, "connections": connections}), encoding="utf-8"
        )
        partial.replace(ready_file)


def _fail(message: str) -> int:
    sys.stderr.write(message + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
