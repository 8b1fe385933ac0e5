#!/bin/bash
# Grants both programs exactly the rights they need: deploy/kafka/acls.sh ARGUMENT…
#
# The arguments go to each kafka-acls as they are, e.g. --bootstrap-server kafka:9092 --command-config admin.properties.
# docs/OPERATIONS.md says what each right is for. Adding a right twice is harmless.
#
# KAFKA_BIN (default /opt/kafka/bin)   where kafka-acls.sh is
# SOURCE_TOPIC, TOPIC_PREFIX, APPLICATION_ID, SINK_GROUP, PROCESSOR, SINK   as in the defaults below
set -euo pipefail

SOURCE_TOPIC=${SOURCE_TOPIC:-warehouse.orders.transactions}
TOPIC_PREFIX=${TOPIC_PREFIX:-warehouse.stock}
APPLICATION_ID=${APPLICATION_ID:-stock}
SINK_GROUP=${SINK_GROUP:-stock-sink}
PROCESSOR=${PROCESSOR:-User:processor}
SINK=${SINK:-User:sink}

connection=("$@")
allow() { # allow PRINCIPAL ARGUMENT…
  "${KAFKA_BIN:-/opt/kafka/bin}/kafka-acls.sh" "${connection[@]}" --add --allow-principal "$@" >/dev/null
}

# The processor: its input, its own topics (Create only where it shall create them itself), its group, its transactions.
allow "$PROCESSOR" --operation Read --operation DescribeConfigs --topic "$SOURCE_TOPIC"
allow "$PROCESSOR" --operation Read --operation Write --operation DescribeConfigs --operation Create \
  --topic "$TOPIC_PREFIX." --resource-pattern-type prefixed
allow "$PROCESSOR" --operation Delete --topic "$TOPIC_PREFIX.movements"
allow "$PROCESSOR" --operation Read --group "$APPLICATION_ID"
allow "$PROCESSOR" --operation Write --transactional-id "$APPLICATION_ID-" --resource-pattern-type prefixed

# The sink: what it reads (transactions only with --transaction-log), and its groups.
allow "$SINK" --operation Read \
  --topic "$TOPIC_PREFIX.deltas" --topic "$TOPIC_PREFIX.control" --topic "$TOPIC_PREFIX.transactions"
allow "$SINK" --operation Read --group "$SINK_GROUP" --resource-pattern-type prefixed
echo "rights of $PROCESSOR and $SINK are there"
