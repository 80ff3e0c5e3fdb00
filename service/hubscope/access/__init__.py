"""Who asks: principals and scopes, API keys, and each tenant's share."""

from hubscope.access.keyring import Keyring
from hubscope.access.pepper import pepper_of
from hubscope.access.principal import LOCAL, Principal, Scope, require
from hubscope.access.shares import Rates
from hubscope.access.token import looks_like_a_key

__all__ = ["LOCAL", "Keyring", "Principal", "Rates", "Scope", "looks_like_a_key", "pepper_of", "require"]
