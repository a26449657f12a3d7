# What backup.sh and restore.sh share: which databases there are, and how to reach them. Sourced, never run.
state=${MLFLOW_SERVER_STATE:-$PWD/.damcrack/server}
runs=${MLFLOW_BACKEND_STORE_URI:-sqlite:///$state/runs.db}
accounts=${MLFLOW_ACCOUNTS_URI:-sqlite:///$state/accounts.db}

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

decoded() { printf '%b' "${1//%/\\x}"; }

# Sets PG* from postgresql+psycopg2://USER:PASSWORD@HOST:PORT/NAME: in an argument everybody on the machine would see
# the password.
reach() {
    local pattern='^postgres(ql)?(\+[a-z0-9]+)?://([^:@/]+):([^@/]*)@([^:/]+)(:([0-9]+))?/([^?]+)'
    [[ $1 =~ $pattern ]] || fail "the database's address is neither sqlite:///FILE nor postgresql://USER:PASSWORD@HOST/NAME"
    PGUSER=$(decoded "${BASH_REMATCH[3]}") PGPASSWORD=$(decoded "${BASH_REMATCH[4]}")
    PGHOST=${BASH_REMATCH[5]} PGPORT=${BASH_REMATCH[7]:-5432} PGDATABASE=$(decoded "${BASH_REMATCH[8]}")
    export PGUSER PGPASSWORD PGHOST PGPORT PGDATABASE
}
