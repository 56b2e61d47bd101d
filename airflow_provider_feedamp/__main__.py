"""Run the ``feedamp`` command: ``python -m airflow_provider_feedamp``."""

from __future__ import annotations

import sys

from airflow_provider_feedamp.cli.main import main

if __name__ == "__main__":
    sys.exit(main(prog_name="python -m airflow_provider_feedamp"))
