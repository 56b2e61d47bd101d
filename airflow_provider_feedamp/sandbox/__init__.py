"""A faithful local FeedAMP: stand-in for tests, demos and users' own DAG tests (extra ``[sandbox]``)."""

from __future__ import annotations
