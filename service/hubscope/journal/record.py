"""One security event, in a form that the table takes whatever text is in it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Struct, field

from hubscope.ids import uuid7

Severity = Literal["info", "low", "medium", "high", "critical"]
LONGEST_LABEL: Final = 300
LONGEST_TEXT: Final = 2_000


class AuditRecord(Struct, frozen=True, kw_only=True):
    """A row of hub.security_audit_log as its writer knows it.

    Attributes:
        tenant: in whose name it was asked.
        event_type: such as sql_query.
        severity: how much an auditor should care.
        resource_type, resource_id: what it was about, such as database, main.
        action: what was asked for, such as query.
        status: what came of it, such as success or refused.
        actor: who asked, as the door knows it.
        owner: the person whom the key belongs to.
        user_agent, session_id, request_id, address: where it came from.
        permissions: scopes of the one who asked.
        description: one sentence, without secrets.
        details: whatever else is worth knowing; JSON.
        time: when it was seen, by this process's clock.
    """

    tenant: str
    event_type: str
    severity: Severity
    resource_type: str
    resource_id: str
    action: str
    status: str
    actor: str = ""
    owner: str = ""
    user_agent: str = ""
    session_id: str = ""
    request_id: str = ""
    address: str = ""
    permissions: tuple[str, ...] = ()
    description: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    id: UUID = field(default_factory=uuid7)
    time: datetime = field(default_factory=lambda: datetime.now(UTC))

    def row(self) -> tuple[Any, ...]:
        """Arguments of the statement `append`."""
        return (
            self.tenant,
            self.id,
            self.time,
            *(
                storable(text, LONGEST_LABEL)
                for text in (
                    self.event_type,
                    self.severity,
                    self.resource_type,
                    self.resource_id,
                    self.action,
                    self.status,
                    self.actor,
                    self.owner,
                    self.user_agent,
                    self.session_id,
                    self.request_id,
                    self.address,
                )
            ),
            [storable(each, LONGEST_LABEL) for each in self.permissions],
            storable(self.description, LONGEST_TEXT),
            msgspec.json.encode(_storable(self.details)).decode(),
        )


def storable(text: str, longest: int | None = None) -> str:
    """The text as PostgreSQL takes it: without NUL and lone surrogates, cut."""
    if longest is not None:
        text = text[:longest]
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(str(name)): _storable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(each) for each in value]
    return value
