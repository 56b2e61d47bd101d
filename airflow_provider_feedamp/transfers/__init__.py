"""Tasks that carry what a FeedAMP account holds to other storage."""

from __future__ import annotations
