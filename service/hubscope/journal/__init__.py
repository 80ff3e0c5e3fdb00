"""What hubscope itself has seen of who asked for what: the writer of hub.security_audit_log.

Records are appended and never changed. Whoever reports one never waits for the database, unless that is wished.
"""

from hubscope.journal.record import AuditRecord, Severity
from hubscope.journal.writer import Journal

__all__ = ["AuditRecord", "Journal", "Severity"]
