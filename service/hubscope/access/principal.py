"""The one who asks. Every function that reads or writes for somebody takes a Principal."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from hubscope.errors import ScopeMissing

DEFAULT_TENANT: Final = "default"


class Scope(StrEnum):
    """What a principal may do. None of them holds another.

    ingest  send events in the tenant's name
    read    ask about the tenant
    chains  run tool chains in the tenant's name
    sql     use the SQL server
    admin   see what belongs to the whole installation: /metrics, full /health. For operators, not for tenants
    """

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
        actor: who it is, for the audit log; not part of the identity.
        owner: the person whom a key belongs to.
    """

    tenant: str
    scopes: frozenset[Scope]
    actor: str = field(default="", compare=False)
    owner: str = field(default="", compare=False)


LOCAL: Final = Principal(DEFAULT_TENANT, frozenset(Scope), actor="this machine")
"""Whoever is on this machine, as long as there are no keys: the operating system is the guard."""


def require(principal: Principal, scope: Scope) -> None:
    """Let only those go on who hold a scope.

    Raises:
        ScopeMissing: naming it.
    """
    if scope not in principal.scopes:
        raise ScopeMissing(scope)
