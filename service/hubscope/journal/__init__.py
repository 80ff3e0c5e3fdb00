"""What hubscope itself has seen of who asked for what (the writer of hub.security_audit_log), and live updates.

Audit records are appended and never changed. Whoever reports one never waits for the database, unless that is wished.
"""

from hubscope.journal.news import FILTERS, TOPICS, Topic, Wanted
from hubscope.journal.record import AuditRecord, Severity
from hubscope.journal.stream import Stream, Streams
from hubscope.journal.writer import Journal

__all__ = ["FILTERS", "TOPICS", "AuditRecord", "Journal", "Severity", "Stream", "Streams", "Topic", "Wanted"]
