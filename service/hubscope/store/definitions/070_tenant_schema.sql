-- Where each tenant sees its own rows of the marts (marts.py makes the views): SQL that a key of a tenant may ask.

CREATE SCHEMA IF NOT EXISTS tenant AUTHORIZATION :worker;
COMMENT ON SCHEMA tenant IS 'The rows of one tenant: of the one that the session says (hubscope.tenant). Without one, none.';
