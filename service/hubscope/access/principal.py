"""The one who asks. Every function that reads or writes for somebody takes a Principal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DEFAULT_TENANT: Final = "default"


class Scope(StrEnum):
    """What a principal may do."""

    INGEST = "ingest"
    READ = "read"
    CHAINS = "chains"
    SQL = "sql"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """A tenant and what may be done in its name.

    Attributes:
        tenant: first column of every key in the store.
        scopes: the allowed actions.
    """

    tenant: str
    scopes: frozenset[Scope]


LOCAL: Final = Principal(DEFAULT_TENANT, frozenset(Scope))
"""Whoever reaches the loopback address: there are no keys yet, so the operating system is the guard."""
