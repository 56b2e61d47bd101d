"""Run DAG files with ``dag.test()``, one after the other, in a process of their own.

``python -m tests.run_dags '{"files": {"path.py": {conf}}, "codes": {"seller": "code"}, "report": "path"}'``.
The report is one JSON object: per file the DAG's id, the run's state, and the warnings of our own code.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def load(file: str) -> tuple[Any, list[str]]:
    """Import a DAG file; return its DAG and the warnings whose place is in this repository."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        spec = importlib.util.spec_from_file_location(Path(file).stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    ours = [f"{each.filename}:{each.lineno}: {each.message}" for each in caught if is_ours(each.filename)]
    return module.dag, ours


def is_ours(filename: str) -> bool:
    """Say whether a file is in this repository and in no environment inside it."""
    path = Path(filename).resolve()
    return path.is_relative_to(ROOT) and "site-packages" not in path.parts


def authorise(codes: dict[str, str]) -> None:
    """Make sellers ready, as the examples tell their readers to do beforehand."""
    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
    from airflow_provider_feedamp.tokens.cache import CACHE

    for seller, code in codes.items():
        FeedAmpHook(seller=seller).exchange_code(code)
    CACHE.clear()


def main() -> None:
    """Run what the command line asks for."""
    asked = json.loads(sys.argv[1])
    report = {}
    authorise(asked["codes"])
    for file, conf in asked["files"].items():
        dag, ours = load(file)
        run = dag.test(run_conf=conf)
        report[file] = {"dag_id": dag.dag_id, "state": str(run.state), "warnings": ours}
    Path(asked["report"]).write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main()
