from __future__ import annotations

from tests.sensors.conftest import feedamp

__all__ = ["feedamp"]
