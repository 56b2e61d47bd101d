"""Tasks that wait for what a seller does."""

from __future__ import annotations
