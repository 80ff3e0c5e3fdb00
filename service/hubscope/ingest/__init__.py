"""Ingest: posted events become committed rows. `Ingest.post` is the one public path; a receipt means committed."""

from hubscope.ingest.intake import Ingest, Posted

__all__ = ["Ingest", "Posted"]
