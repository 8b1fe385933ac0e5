#!/bin/bash
# The official image's contract, as far as a compose file uses it: POSTGRES_USER, POSTGRES_PASSWORD(_FILE), POSTGRES_DB,
# POSTGRES_INITDB_ARGS, POSTGRES_HOST_AUTH_METHOD, /docker-entrypoint-initdb.d at first start, arguments to the server.
set -euo pipefail

[ "${1#-}" = "$1" ] || set -- postgres "$@"
[ "$1" = postgres ] || exec "$@"

# The server refuses to run as root: prepare the directories, then start over as its own user.
if [ "$(id -u)" = 0 ]; then
  install -d -o postgres -g postgres -m 700 "$PGDATA"
  install -d -o postgres -g postgres -m 3775 /var/run/postgresql
  exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
sockets=/var/run/postgresql

query() { psql -v ON_ERROR_STOP=1 -X -w -h "$sockets" -U "$user" "$@"; }

run_init_files() {
  local file
  for file in /docker-entrypoint-initdb.d/*; do
    echo "$0: $file"
    case "$file" in
      *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
      *.sql) query -d "$database" -f "$file" ;;
      *.sql.gz) gunzip -c "$file" | query -d "$database" ;;
    esac
  done
}

# first_start SERVER-ARGUMENT…: the server listens on its socket only, so that nobody connects to a half-made database.
first_start() {
  local password=${POSTGRES_PASSWORD:-}
  [ -z "${POSTGRES_PASSWORD_FILE:-}" ] || password=$(cat "$POSTGRES_PASSWORD_FILE")
  if [ -z "$password" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
    echo "POSTGRES_PASSWORD must be set" >&2
    exit 1
  fi
  # shellcheck disable=SC2086 # the arguments are meant to be split
  initdb -D "$PGDATA" -U "$user" --pwfile=<(printf '%s\n' "$password") ${POSTGRES_INITDB_ARGS:-}
  printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
  pg_ctl -D "$PGDATA" -o "$(printf '%q ' "$@" -c listen_addresses= -c "unix_socket_directories=$sockets")" -w start
  export PGPASSWORD=$password POSTGRES_USER=$user POSTGRES_DB=$database
  [ "$database" = postgres ] || query -d postgres -c "CREATE DATABASE \"$database\""
  run_init_files
  pg_ctl -D "$PGDATA" -m fast -w stop
  unset PGPASSWORD
  echo "PostgreSQL init process complete; ready for start up."
}

shopt -s nullglob
# No "||" here: it would switch errexit off in the whole function.
if [ ! -s "$PGDATA/PG_VERSION" ]; then first_start "${@:2}"; fi
exec "$@" -c listen_addresses='*' -c "unix_socket_directories=$sockets"
