"""Who asks: principals and scopes, API keys, each tenant's share, and secrets at rest."""

from hubscope.access.keyring import Keyring
from hubscope.access.pepper import pepper_of
from hubscope.access.principal import LOCAL, Principal, Scope, require
from hubscope.access.shares import Rates
from hubscope.access.token import looks_like_a_key
from hubscope.access.vault import Vault, vault_of

__all__ = [
    "LOCAL",
    "Keyring",
    "Principal",
    "Rates",
    "Scope",
    "Vault",
    "looks_like_a_key",
    "pepper_of",
    "require",
    "vault_of",
]
