"""Many orders at once: read a source, place each order, keep what was refused."""

from __future__ import annotations
