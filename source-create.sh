#!/usr/bin/env bash
# Registers the Debezium connector "orders-connector" and waits until it runs: ./source-create.sh
#
# CONNECT_URL (default http://localhost:8083) is where Kafka Connect answers; WAIT_SECONDS (default 180) bounds the whole.
# It may be run again at any time: the same configuration is put in place (PUT creates or replaces, POST would only create)
# and a failed connector or task is restarted. docker-compose.yml runs this very script once at start.
# Needs bash and curl only, so that it runs on a host and inside the Connect image alike.
set -euo pipefail

CONNECT_URL=${CONNECT_URL:-http://localhost:8083}
WAIT_SECONDS=${WAIT_SECONDS:-180}
CONNECTOR=$CONNECT_URL/connectors/orders-connector

# Where the source is and as whom to read it; the role is deploy/postgres/source-roles.sql. The password may name a file on
# Connect's side: ${file:/etc/debezium.properties:password}, with Connect's FileConfigProvider.
DATABASE_HOSTNAME=${DATABASE_HOSTNAME:-db}
DATABASE_PORT=${DATABASE_PORT:-5432}
DATABASE_DBNAME=${DATABASE_DBNAME:-goods_db}
DATABASE_USER=${DATABASE_USER:-debezium}
DATABASE_PASSWORD=${DATABASE_PASSWORD:-debezium}
# verify-full, with DATABASE_SSLROOTCERT a file on Connect's side.
tls=
[ -z "${DATABASE_SSLMODE:-}" ] || tls="
  \"database.sslmode\": \"$DATABASE_SSLMODE\",
  \"database.sslrootcert\": \"${DATABASE_SSLROOTCERT:-}\","

# FORMAT=avro, FORMAT=json-schema: keys and values in that form, their schemas in a registry where Connect reaches it: Avro by
# Apicurio's converter, which Debezium's image has, JSON Schema by JSON_SCHEMA_CONVERTER, to be installed. Settled before the
# first record: keys cannot change later. REGISTRY_CA_FILE is a file on Connect's side, for https.
FORMAT=${FORMAT:-json}
REGISTRY_URL=${REGISTRY_URL:-http://registry:8080}
JSON_SCHEMA_CONVERTER=${JSON_SCHEMA_CONVERTER:-io.confluent.connect.json.JsonSchemaConverter}
converter() { # converter key|value: its settings
  local name=$1.converter registry=$1.converter.apicurio.registry
  if [ "$FORMAT" = json ]; then
    printf '  "%s": "org.apache.kafka.connect.json.JsonConverter",\n  "%s.schemas.enable": "false",\n' "$name" "$name"
    return
  fi
  if [ "$FORMAT" = json-schema ]; then
    printf '  "%s": "%s",\n  "%s.schema.registry.url": "%s/apis/ccompat/v7",\n' "$name" "$JSON_SCHEMA_CONVERTER" "$name" "$REGISTRY_URL"
    [ -z "${REGISTRY_CA_FILE:-}" ] ||
      printf '  "%s.schema.registry.ssl.truststore.%s": "%s",\n' "$name" type PEM "$name" location "$REGISTRY_CA_FILE"
    return
  fi
  printf '  "%s": "io.apicurio.registry.utils.converter.AvroConverter",\n' "$name"
  printf '  "%s.url": "%s/apis/registry/v2",\n' "$registry" "$REGISTRY_URL"
  printf '  "%s.%s": "true",\n' "$registry" auto-register "$registry" find-latest "$registry" as-confluent
  printf '  "%s.headers.enabled": "false",\n' "$registry"
  [ -z "${REGISTRY_CA_FILE:-}" ] ||
    printf '  "%s.apicurio.rest.request.ssl.ca-bundle.location": "%s",\n' "$name" "$REGISTRY_CA_FILE"
}

# Names that Avro accepts, whatever the topic is called.
names=
[ "$FORMAT" = json ] || names='
  "schema.name.adjustment.mode": "avro",'

# The processor's rule rests on what this configuration makes Debezium write; docs/ARCHITECTURE.md says why.
CONFIG=$(cat <<JSON
{
  "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
  "database.hostname": "$DATABASE_HOSTNAME",
  "database.port": "$DATABASE_PORT",
  "database.user": "$DATABASE_USER",
  "database.password": "$DATABASE_PASSWORD",
  "database.dbname": "$DATABASE_DBNAME",$tls
  "database.server.name": "warehouse",
  "plugin.name": "pgoutput",
  "table.include.list": "orders.transactions",$names
$(converter key)
$(converter value)
  "decimal.handling.mode": "double",
  "hstore.handling.mode": "json",
  "topic.prefix": "warehouse",
  "output.data.format": "JSON",
  "message.key.columns": "orders.transactions:id"
}
JSON
)

say()  { printf '%s\n' "$*" >&2; }
fail() { # fail CODE WHAT REMEDY
  say "$1: $2. To do: $3"
  exit 1
}

case "$FORMAT" in json | json-schema | avro) ;; *) fail CONNECTOR-FORMAT "FORMAT=$FORMAT is none of json, json-schema, avro" "give one of them" ;; esac
command -v curl >/dev/null || fail CONNECTOR-NO-CURL "curl is missing" "install it, or run this inside the Connect image"

# request CURL-ARGUMENT…: sets STATUS (000 = no answer) and BODY.
request() {
  local answer
  answer=$(curl -sS --max-time 20 -w '\n%{http_code}' "$@" 2>&1) || true
  STATUS=${answer##*$'\n'}
  BODY=${answer%$'\n'*}
}

# pause REMEDY: between two attempts; ends the script when the time is over, with what was seen last.
pause() {
  [ "$SECONDS" -lt "$WAIT_SECONDS" ] ||
    fail CONNECTOR-TIMEOUT "not running after $WAIT_SECONDS s; last answer of $CONNECT_URL: $STATUS ${BODY:0:2000}" "$1"
  sleep 1
}

wait_for_connect() {
  say "waiting for Kafka Connect at $CONNECT_URL"
  while request "$CONNECT_URL/connectors"; [ "$STATUS" != 200 ]; do
    pause "is Connect up (docker compose ps connect), and is CONNECT_URL right?"
  done
}

put_configuration() {
  while request -X PUT -H 'Content-Type: application/json' --data "$CONFIG" "$CONNECTOR/config"; do
    case "$STATUS" in
      200 | 201) say "orders-connector registered"; return ;;
      # The worker is rebalancing (409), starting or out of reach: it passes.
      409 | 5?? | 000) pause "see the log of Connect (docker compose logs connect)" ;;
      *) fail CONNECTOR-REFUSED "Connect refuses the configuration: $STATUS $BODY" \
        "is the source database up and reachable from Connect, with wal_level=logical?" ;;
    esac
  done
}

# The connector's own state comes first in the answer, the tasks' follow; with fewer than two there is no task yet.
wait_until_running() {
  local states restarted=-10
  while request "$CONNECTOR/status"; do
    states=$(grep -o '"state":"[A-Z]*"' <<<"$BODY" | cut -d'"' -f4 | tr '\n' ' ' || true)
    case "$states" in
      *FAILED*)
        # A failure from before this run stays until somebody restarts it; one that comes back ends in the timeout above.
        if [ $((SECONDS - restarted)) -ge 10 ]; then
          restarted=$SECONDS
          say "failed, restarting: ${BODY:0:600}"
          request -X POST "$CONNECTOR/restart?includeTasks=true&onlyFailed=true"
        fi
        ;;
      "RUNNING RUNNING "*) say "orders-connector and its task are RUNNING"; return ;;
    esac
    pause "see the trace above and the log of Connect; is the source database up, with wal_level=logical?"
  done
}

wait_for_connect
put_configuration
wait_until_running
