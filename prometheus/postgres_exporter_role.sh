#!/bin/sh
# The role of postgres_exporter: it may look at the server's statistics and at no table. The database's image runs this
# once, when it sets up an empty data directory; for an existing one, run the two statements by hand.
psql --no-psqlrc --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set ON_ERROR_STOP=1 --set password="$POSTGRES_EXPORTER_PASSWORD" <<'SQL'
CREATE ROLE postgres_exporter LOGIN CONNECTION LIMIT 5 PASSWORD :'password';
GRANT pg_monitor TO postgres_exporter;
SQL
