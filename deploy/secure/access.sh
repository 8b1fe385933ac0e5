#!/bin/bash
# Lets the programs of the secured compose stack in: SCRAM users, rights, and the input topic. Runs in the service
# "create-topics", as the super user that the certificate "admin" makes it; may be run again.
set -euo pipefail

secrets=/etc/stock
bin=/opt/kafka/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/admin.properties" <<PROPERTIES
security.protocol=SSL
ssl.keystore.type=PEM
ssl.keystore.location=$secrets/admin.pem
ssl.truststore.type=PEM
ssl.truststore.location=$secrets/ca.crt
PROPERTIES
connection=(--bootstrap-server "$BOOTSTRAP_SERVERS" --command-config "$work/admin.properties")

for user in processor sink; do
  "$bin/kafka-configs.sh" "${connection[@]}" --alter --entity-type users --entity-name "$user" \
    --add-config "SCRAM-SHA-512=[password=$(cat "$secrets/$user.1000")]" >/dev/null
  echo "user $user is there"
done

KAFKA_BIN=$bin /deploy/kafka/acls.sh "${connection[@]}"

# Connect: its own topics and group, and writing the input.
connect() { "$bin/kafka-acls.sh" "${connection[@]}" --add --allow-principal User:CN=connect "$@" >/dev/null; }
connect --operation Read --operation Write --operation Create --operation DescribeConfigs \
  --topic warehouse-connect- --resource-pattern-type prefixed
connect --operation Read --group warehouse-connect
connect --operation Write --topic warehouse.orders.transactions

"$bin/kafka-topics.sh" "${connection[@]}" --create --if-not-exists --topic warehouse.orders.transactions \
  --partitions 10 --replication-factor 3 \
  --config cleanup.policy=delete --config retention.ms=-1 --config max.message.bytes=4194304
