"""Benches: ratios to a physical limit or a peer, measured in one run. `python -m tests.bench NAME [--json]`."""
