"""Put connections into the metadata database and authorise sellers, beside that database.

``python -m tests.deployments.prepare '{"conn_id": {"connection": {...}, "codes": {"seller": "code"}}}'``.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Do what the command line asks for."""
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

    asked = json.loads(sys.argv[1])
    with create_session() as session:
        session.add_all(
            Connection.from_json(json.dumps(each["connection"]), conn_id) for conn_id, each in asked.items()
        )
    for conn_id, each in asked.items():
        for seller, code in each["codes"].items():
            FeedAmpHook(feedamp_conn_id=conn_id, seller=seller).exchange_code(code)


if __name__ == "__main__":
    main()
