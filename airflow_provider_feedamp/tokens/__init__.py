"""Custody of OAuth tokens: who may spend a refresh token, when, and what happens if that goes wrong."""

from __future__ import annotations
