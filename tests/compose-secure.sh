#!/usr/bin/env bash
# The whole job on the secured compose stack: rows written to the source appear as sums in the target, changed and deleted ones
# too; who cannot show who they are is not let in; nobody's log shows a secret. `make secure-compose` calls it.
#
# INPUT=json|json-schema|avro (default json): the form of the changes; OUTPUT=json|avro: of stock deltas and changelog. Schemas are
# in the stack's registry, over TLS. json-schema needs the tests' converter for Connect, which `make programs` lets it install.
# A project and ports of its own; removes everything it has started, also when it fails (KEEP=1 keeps it).
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. deploy/lib.sh

export COMPOSE_PROJECT_NAME=stock-secure
export KAFKA_1_PORT=29392 KAFKA_2_PORT=29393 KAFKA_3_PORT=29394 CONNECT_PORT=28383 REGISTRY_PORT=28385
export SOURCE_DB_PORT=25732 REMAINS_DB_PORT=25733
export PROCESSOR_1_PORT=28381 PROCESSOR_2_PORT=28382 SINK_1_PORT=28386 SINK_2_PORT=28387
WAIT_SECONDS=${WAIT_SECONDS:-240}
INPUT=${INPUT:-json} OUTPUT=${OUTPUT:-json}
export CONNECTOR_FORMAT=$INPUT OUTPUT_FORMAT=$OUTPUT CHANGELOG_FORMAT=$OUTPUT

find_docker || fail ENGINE-DOWN "no container engine answers" "run deploy/engine.sh up"
further=()
if [ "$INPUT" = json-schema ]; then
  converters=$("${STACK_PROGRAMS:-target/debug}/stack" converters)
  export CONVERTERS=$converters JSON_SCHEMA_CONVERTER=stack.JsonSchemaConverter
  further=(-f tests/compose-json-schema.yml)
fi
compose() { deploy/compose.sh --secure "${further[@]}" "$@"; }
clean_up() { [ -n "${KEEP:-}" ] || compose down -v --remove-orphans >/dev/null 2>&1; }
trap clean_up EXIT

# -T: there is no terminal.
sql() { compose exec -T "$1" psql -X -At -v ON_ERROR_STOP=1 -U postgres -d "$2" -c "$3"; }
target() { sql remains-db remains "SELECT good_id, cnt FROM remains.remains WHERE cnt <> 0 ORDER BY 1" 2>/dev/null || true; }
source_sums() {
  sql db goods_db "SELECT good_id, sum(CASE operation WHEN 'add' THEN pcs ELSE -pcs END) AS n FROM orders.transactions GROUP BY 1
    HAVING sum(CASE operation WHEN 'add' THEN pcs ELSE -pcs END) <> 0 ORDER BY 1"
}

wait_equal() {
  local expected
  expected=$(source_sums)
  [ -n "$expected" ] || fail SECURE-EMPTY "the source has no sums" "look at the service db"
  until [ "$(target)" = "$expected" ]; do
    [ "$SECONDS" -lt "$WAIT_SECONDS" ] || {
      compose ps >&2
      compose logs --tail=20 secrets create-topics create-connector registry processor-1 sink-1 >&2
      fail SECURE-TIMEOUT "source and target differ after $WAIT_SECONDS s" "see the logs above"
    }
    sleep 1
  done
  say "source and target agree: $1"
}

compose up -d || {
  compose logs --tail=30 secrets create-topics >&2
  fail SECURE-START "the stack does not come up" "see the logs above"
}
until sql db goods_db "SELECT 1 FROM orders.transactions LIMIT 1" >/dev/null 2>&1; do
  [ "$SECONDS" -lt "$WAIT_SECONDS" ] || fail SECURE-TIMEOUT "the source does not come up" "compose logs db"
  sleep 1
done
sql db goods_db "INSERT INTO orders.transactions (id, good_id, operation, pcs)
  SELECT md5(n::text)::uuid, n % 20, CASE WHEN n % 3 = 0 THEN 'remove' ELSE 'add' END, n % 17 FROM generate_series(1, 500) AS n" >/dev/null
wait_equal "inserts"
sql db goods_db "UPDATE orders.transactions SET pcs = pcs + 1 WHERE good_id % 4 = 1;
  UPDATE orders.transactions SET id = md5(id::text)::uuid WHERE pcs % 7 = 3; DELETE FROM orders.transactions WHERE pcs % 11 = 4" >/dev/null
wait_equal "updates, changed keys, deletes"

# Connect and the processors may well agree on a form that nobody asked for.
first_byte() { # first_byte TOPIC: of the first value in it, in hexadecimal
  compose exec -T kafka-1 bash -c '
    printf "%s\n" security.protocol=SSL ssl.keystore.type=PEM ssl.keystore.location=/etc/stock/admin.pem \
      ssl.truststore.type=PEM ssl.truststore.location=/etc/stock/ca.crt >/tmp/admin.properties
    /opt/kafka/bin/kafka-console-consumer.sh --bootstrap-server kafka-1:19093 --command-config /tmp/admin.properties \
      --topic "$1" --from-beginning --max-messages 1 --timeout-ms 30000 2>/dev/null | od -An -tx1 -N1 | tr -d " "' _ "$1"
}
ensure_form() { # ensure_form TOPIC FORM: a brace in plain JSON, a zero before the id of a schema
  local expected=00 found
  [ "$2" != json ] || expected=7b
  found=$(first_byte "$1")
  [ "$found" = "$expected" ] || fail SECURE-FORMAT "values of $1 begin with '$found', not $expected" "look at FORMAT in source-create.sh"
}
ensure_form warehouse.orders.transactions "$INPUT"
ensure_form warehouse.stock.deltas "$OUTPUT"
say "changes are in $INPUT, stock deltas in $OUTPUT"

# Nobody gets in without a login, and the sink's role reaches nothing but its schema.
if compose exec -T kafka-1 timeout 20 /opt/kafka/bin/kafka-topics.sh --bootstrap-server kafka-1:19092 --list >/dev/null 2>&1; then
  fail SECURE-OPEN "a client without a login lists topics" "look at the listeners of docker-compose.secure.yml"
fi
[ "$(sql remains-db remains "SELECT has_schema_privilege('sink', 'public', 'CREATE') OR has_schema_privilege('sink', 'public', 'USAGE')
  OR has_database_privilege('sink', 'remains', 'CREATE, TEMPORARY')")" = f ] ||
  fail SECURE-ROLE "the sink's role may do more than it needs" "look at deploy/postgres/target-roles.sql"
[ "$(sql remains-db remains "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.usename = 'sink' AND NOT s.ssl")" = 0 ] ||
  fail SECURE-CLEAR "the sink talks to the target in the clear" "look at SINK_DATABASE_URL"
if status=$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$REGISTRY_PORT/apis/ccompat/v7/subjects") && [ "$status" = 200 ]; then
  fail SECURE-REGISTRY "the registry answers in the clear" "look at QUARKUS_HTTP_INSECURE_REQUESTS"
fi

# Every password there is, in every log there is, and in what Connect tells about the connector.
logs=$(mktemp)
compose logs --no-color >"$logs" 2>&1
curl -fsS "http://127.0.0.1:$CONNECT_PORT/connectors/orders-connector" >>"$logs"
for port in "$PROCESSOR_1_PORT" "$SINK_1_PORT"; do curl -fsS "http://127.0.0.1:$port/metrics" >>"$logs"; done
secrets=$(compose run --rm -T --entrypoint bash secrets -c \
  'cat /etc/stock/processor.1000 /etc/stock/sink.1000 /etc/stock/debezium.postgres /etc/stock/sink-role.postgres' 2>/dev/null)
[ "$(wc -w <<<"$secrets")" = 4 ] || fail SECURE-SECRETS "the passwords cannot be read: $(wc -w <<<"$secrets") of 4" "look at deploy/secure/files.sh"
for secret in $secrets; do
  ! grep -qF -- "$secret" "$logs" || fail SECURE-LEAK "a log shows a password" "grep it in $logs"
done
rm -f "$logs"
say "passed"
