-- Ingest admits names and decides about vantages; neither is ever taken back.

GRANT SELECT, INSERT ON hub.known_names, hub.counting_vantages TO :writer;
