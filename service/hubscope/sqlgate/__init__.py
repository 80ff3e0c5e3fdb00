"""The read-only SQL server's core: guard (AST), policy (names), execution. Knows nothing of hubscope's schema."""

from hubscope.sqlgate.config import Limits, Served, databases, limits_of, served, url_of
from hubscope.sqlgate.guard import Inspected, inspect
from hubscope.sqlgate.narrowed import Narrowed
from hubscope.sqlgate.policy import Policy
from hubscope.sqlgate.run import Database, Gate, Result

__all__ = [
    "Database",
    "Gate",
    "Inspected",
    "Limits",
    "Narrowed",
    "Policy",
    "Result",
    "Served",
    "databases",
    "inspect",
    "limits_of",
    "served",
    "url_of",
]
