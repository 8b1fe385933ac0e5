#!/bin/bash
# Makes everything secret of the secured compose stack at its first start: certificates, and random passwords in files that
# one user each can read. Runs as root in the service "secrets"; what is there already stays.
set -euo pipefail

directory=${1:-/etc/stock}
umask 077

# NAME OWNER: the owner is the user that the image runs as. Names of databases are those of the services.
kafka=1000 connect=1001 registry=1001 programs=10001 database=postgres

/deploy/secure/certificates.sh "$directory" \
  "kafka-1=kafka-1,localhost@$kafka" "kafka-2=kafka-2,localhost@$kafka" "kafka-3=kafka-3,localhost@$kafka" \
  "admin=admin@$kafka" "connect=connect@$connect" "db=db,localhost@$database" "remains-db=remains-db,localhost@$database" \
  "registry=registry,localhost@$registry"

# password NAME OWNER…: the same random password for each owner, in files of their own: NAME.OWNER
password() {
  local name=$1 owner text
  shift
  [ ! -e "$directory/$name.done" ] || return 0
  text=$(openssl rand -hex 24)
  for owner in "$@"; do
    printf '%s\n' "$text" >"$directory/$name.$owner"
    chown "$owner" "$directory/$name.$owner"
  done
  : >"$directory/$name.done"
}
password processor "$kafka" "$programs"
password sink "$kafka" "$programs"
password debezium "$database" "$connect"
password sink-role "$database" "$programs"

# As Connect's FileConfigProvider reads it.
if [ ! -e "$directory/debezium.properties" ]; then
  printf 'password=%s\n' "$(cat "$directory/debezium.$connect")" >"$directory/debezium.properties"
  chown "$connect" "$directory/debezium.properties"
fi
echo "secrets are there: $directory"
