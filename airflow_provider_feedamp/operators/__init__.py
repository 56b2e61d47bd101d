"""The tasks of this provider."""

from __future__ import annotations
