"""What the Makefile runs: environments, the matrix, the constraints and the demo. Not part of the package."""

from __future__ import annotations
