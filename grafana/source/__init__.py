"""The Grafana dashboards as Python: `python -m grafana.source` builds them into grafana/dashboards/.

The built JSON is committed, so that Grafana's file provisioning needs no Python; a contract test compares the two.
File provisioning reads the classic dashboard model (schema version 42), which the SDK calls deprecated as soon as it
is imported. The import below is the first one everywhere, so that the warning is spoken of once and here.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import dashboard, stat  # noqa: F401
