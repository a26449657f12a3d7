#!/usr/bin/env bash
# Fills the empty databases of a stopped server from a folder that backup.sh made.
#   restore.sh BACKUPS/TIME  MLFLOW_BACKEND_STORE_URI, MLFLOW_ACCOUNTS_URI of the new server, as for serve.sh
# Checks the copy first, and refuses a database that holds anything. A database is restored atomically.
set -euo pipefail
umask 077
. "$(dirname "${BASH_SOURCE[0]}")/databases.sh"
backup=${1:?usage: restore.sh FOLDER}
[ -f "$backup/SHA256SUMS" ] || fail "$backup is no backup (no SHA256SUMS in it); give a folder that backup.sh made"
(cd "$backup" && sha256sum --check --quiet SHA256SUMS) || fail "$backup is damaged; take another one"

refuse_if_filled() {
    case $1 in
    sqlite:///*) [ ! -s "${1#sqlite:///}" ] || fail "${1#sqlite:///} exists; restore into a new place" ;;
    *)
        reach "$1"
        local tables
        tables=$(psql -Atqc "select count(*) from information_schema.tables where table_schema = 'public'")
        [ "$tables" = 0 ] || fail "database $PGDATABASE on $PGHOST holds $tables tables; restore into an empty one"
        ;;
    esac
}

fill() { # ADDRESS FILE
    case $1 in
    sqlite:///*)
        mkdir -p "$(dirname "${1#sqlite:///}")"
        cp "$2" "${1#sqlite:///}.part" && mv "${1#sqlite:///}.part" "${1#sqlite:///}"
        ;;
    *)
        reach "$1"
        pg_restore --no-owner --no-privileges --exit-on-error --single-transaction --dbname="$PGDATABASE" "$2"
        ;;
    esac
}

refuse_if_filled "$runs"
refuse_if_filled "$accounts"
fill "$runs" "$backup/runs"
fill "$accounts" "$backup/accounts"
echo "restored from $backup"
