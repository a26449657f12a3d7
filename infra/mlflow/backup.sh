#!/usr/bin/env bash
# Copies the server's databases (runs, accounts) into BACKUPS/TIME/, while it runs; keeps the newest KEEP of them.
#   backup.sh BACKUPS        MLFLOW_BACKEND_STORE_URI, MLFLOW_ACCOUNTS_URI as for serve.sh; KEEP (14)
# Artifacts are not in it: keep versions of the bucket's objects (docs/mlflow.md).
set -euo pipefail
umask 077
. "$(dirname "${BASH_SOURCE[0]}")/databases.sh"
backups=${1:?usage: backup.sh FOLDER} keep=${KEEP:-14}
stamp=$(date -u +%Y%m%dT%H%M%SZ)
mkdir -p "$backups"
work=$(mktemp -d "$backups/.$stamp-XXXXXX")
trap 'rm -rf "$work"' EXIT

copy() { # ADDRESS FILE
    case $1 in
    sqlite:///*)
        [ -f "${1#sqlite:///}" ] || fail "${1#sqlite:///} is not there: nothing to back up"
        python3 -c 'import sqlite3, sys
with sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True) as old, sqlite3.connect(sys.argv[2]) as new:
    old.backup(new)' "${1#sqlite:///}" "$2"
        ;;
    *)
        reach "$1"
        pg_dump --format=custom --no-owner --no-privileges --file="$2"
        ;;
    esac
}

copy "$runs" "$work/runs"
copy "$accounts" "$work/accounts"
(cd "$work" && sha256sum runs accounts >SHA256SUMS)
mv "$work" "$backups/$stamp"
echo "$backups/$stamp"
# Names are times, so that the shell's order is by age.
old=("$backups"/[0-9]*T*Z)
for ((i = 0; i < ${#old[@]} - keep; i++)); do rm -rf "${old[i]}"; done
