"""The ``feedamp`` command: sellers, their tokens, and the sandbox, for whoever runs the deployment."""

from __future__ import annotations
