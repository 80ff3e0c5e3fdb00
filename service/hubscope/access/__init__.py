"""Who asks: principals and scopes. API keys and tenant shares move in here."""

from hubscope.access.principal import LOCAL, Principal, Scope

__all__ = ["LOCAL", "Principal", "Scope"]
