#!/usr/bin/env bash
# The team's MLflow server with accounts: the same script on a laptop, in the compose file and on Kubernetes.
#
#   MLFLOW_BACKEND_STORE_URI        runs: postgresql+psycopg2://USER:PASSWORD@HOST/DB     (default: a SQLite file in STATE)
#   MLFLOW_ACCOUNTS_URI             accounts: another database of the same kind           (default: a SQLite file in STATE)
#   MLFLOW_ARTIFACTS_DESTINATION    s3://BUCKET/PREFIX, with AWS_* and MLFLOW_S3_ENDPOINT_URL (default: a folder in STATE)
#   MLFLOW_AUTH_ADMIN_PASSWORD      of the account "admin", used when it does not exist yet (default: drawn, kept in STATE)
#   MLFLOW_FLASK_SERVER_SECRET_KEY  signs the pages' forms                                (default: drawn, kept in STATE)
#   MLFLOW_SERVER_ALLOWED_HOSTS     names that clients may call it by, with and without the port (default: loopback)
#   MLFLOW_HOST, MLFLOW_PORT, MLFLOW_WORKERS, MLFLOW_SERVER_STATE   (127.0.0.1, 5000, 2, .damcrack/server)
set -euo pipefail
umask 077
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=${MLFLOW_SERVER_STATE:-$PWD/.damcrack/server}
host=${MLFLOW_HOST:-127.0.0.1} port=${MLFLOW_PORT:-5000}
mkdir -p "$state"
state=$(cd "$state" && pwd)

drawn() { # NAME: a secret that is drawn once and kept in STATE
    [ -s "$state/$1" ] || python3 -c 'import secrets; print(secrets.token_urlsafe(24))' >"$state/$1"
    cat "$state/$1"
}

if [ -z "${MLFLOW_AUTH_ADMIN_PASSWORD:-}" ]; then
    MLFLOW_AUTH_ADMIN_PASSWORD=$(drawn admin-password)
    echo "administrator: admin, password in $state/admin-password" >&2
fi
export MLFLOW_AUTH_ADMIN_PASSWORD
export MLFLOW_FLASK_SERVER_SECRET_KEY=${MLFLOW_FLASK_SERVER_SECRET_KEY:-$(drawn secret-key)}
export MLFLOW_BACKEND_STORE_URI=${MLFLOW_BACKEND_STORE_URI:-sqlite:///$state/runs.db}
accounts=${MLFLOW_ACCOUNTS_URI:-sqlite:///$state/accounts.db}
unset MLFLOW_ACCOUNTS_URI
# An empty endpoint is an address to boto3, and a wrong one.
[ -n "${MLFLOW_S3_ENDPOINT_URL:-}" ] || unset MLFLOW_S3_ENDPOINT_URL
# Names are checked against DNS rebinding; a browser sends them with the port, a probe without.
loopback=127.0.0.1,127.0.0.1:$port,localhost,localhost:$port
export MLFLOW_SERVER_ALLOWED_HOSTS=${MLFLOW_SERVER_ALLOWED_HOSTS:-$loopback}
# Nothing here runs jobs on the server; leaving them on costs 2 GB of memory.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true

# The accounts' database address holds a password, so the filled-in file is ours alone. "%" is special in it.
filled=${accounts//%/%%}
export MLFLOW_AUTH_CONFIG_PATH=$state/basic_auth.ini
ini=$(<"$here/basic_auth.ini")
printf '%s\n' "${ini//@ACCOUNTS_URI@/"$filled"}" >"$MLFLOW_AUTH_CONFIG_PATH"

exec mlflow server --app-name basic-auth --host "$host" --port "$port" --workers "${MLFLOW_WORKERS:-2}" \
    --artifacts-destination "${MLFLOW_ARTIFACTS_DESTINATION:-$state/artifacts}"
