#!/bin/bash
# The official image's contract: BOOTSTRAP_SERVERS, GROUP_ID, the three storage topics, HEAP_OPTS and a few more have
# names of their own; any CONNECT_A_B becomes the worker property a.b. Then the worker, as process 1.
set -euo pipefail
[ "$1" = start ] || exec "$@"

for name in GROUP_ID CONFIG_STORAGE_TOPIC OFFSET_STORAGE_TOPIC; do
  [ -n "${!name:-}" ] || { echo "$name must be set" >&2; exit 1; }
done

json=org.apache.kafka.connect.json.JsonConverter
address=$(hostname -i | cut -d' ' -f1)
export CONNECT_BOOTSTRAP_SERVERS="${BOOTSTRAP_SERVERS:-0.0.0.0:9092}"
export CONNECT_GROUP_ID="$GROUP_ID"
export CONNECT_CONFIG_STORAGE_TOPIC="$CONFIG_STORAGE_TOPIC"
export CONNECT_OFFSET_STORAGE_TOPIC="$OFFSET_STORAGE_TOPIC"
export CONNECT_STATUS_STORAGE_TOPIC="${STATUS_STORAGE_TOPIC:-connect-status}"
export CONNECT_KEY_CONVERTER="${KEY_CONVERTER:-$json}"
export CONNECT_VALUE_CONVERTER="${VALUE_CONVERTER:-$json}"
export CONNECT_OFFSET_FLUSH_INTERVAL_MS="${OFFSET_FLUSH_INTERVAL_MS:-60000}"
export CONNECT_OFFSET_FLUSH_TIMEOUT_MS="${OFFSET_FLUSH_TIMEOUT_MS:-5000}"
export CONNECT_TASK_SHUTDOWN_GRACEFUL_TIMEOUT_MS="${SHUTDOWN_TIMEOUT:-10000}"
export CONNECT_REST_ADVERTISED_HOST_NAME="${ADVERTISED_HOST_NAME:-$address}"
export CONNECT_REST_ADVERTISED_PORT="${ADVERTISED_PORT:-8083}"
export CONNECT_LISTENERS="${CONNECT_LISTENERS:-http://0.0.0.0:${REST_PORT:-8083}}"
export CONNECT_PLUGIN_PATH="${CONNECT_PLUGIN_PATH:-/kafka/connect}"
if [ "${ENABLE_APICURIO_CONVERTERS:-}" = true ]; then
  CONNECT_PLUGIN_PATH=$CONNECT_PLUGIN_PATH,/kafka/external_libs
fi

properties=/kafka/config/connect-distributed.properties
: >"$properties"
while IFS= read -r -d '' pair; do
  name=${pair%%=*}
  case "$name" in
    CONNECT_LOG4J*) ;;
    CONNECT_*)
      name=${name#CONNECT_}
      name=${name,,}
      printf '%s=%s\n' "${name//_/.}" "${pair#*=}" >>"$properties"
      ;;
  esac
done < <(env -0)

# shellcheck disable=SC2086 # the options are meant to be split
exec java ${HEAP_OPTS:--Xms256M -Xmx2G} ${KAFKA_OPTS:-} -Dlog4j2.configurationFile=/etc/kafka/docker/log4j2.yaml \
  -cp "/kafka/libs/*" org.apache.kafka.connect.cli.ConnectDistributed "$properties"
