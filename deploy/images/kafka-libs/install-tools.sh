#!/bin/sh
# Writes /opt/kafka/bin: the tools of the Kafka distribution under their own names, as one-line starters
# (the distribution's scripts come with its archive only, not with its Maven artifacts).
set -eu
mkdir -p /opt/kafka/bin

starter() { # starter NAME OPTIONS MAIN-CLASS
  printf '#!/bin/sh\nexec java %s -cp "/opt/kafka/libs/*" %s "$@"\n' "$2" "$3" >"/opt/kafka/bin/$1"
}

tool() { # tool NAME MAIN-CLASS
  starter "$1" '${KAFKA_TOOL_OPTS:--Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC} -Dlog4j2.configurationFile=/etc/kafka/docker/tools-log4j2.yaml' "$2"
}

tool kafka-topics.sh org.apache.kafka.tools.TopicCommand
tool kafka-acls.sh org.apache.kafka.tools.AclCommand
tool kafka-configs.sh kafka.admin.ConfigCommand
tool kafka-broker-api-versions.sh org.apache.kafka.tools.BrokerApiVersionsCommand
tool kafka-consumer-groups.sh org.apache.kafka.tools.consumer.group.ConsumerGroupCommand
tool kafka-console-producer.sh org.apache.kafka.tools.ConsoleProducer
tool kafka-console-consumer.sh org.apache.kafka.tools.consumer.ConsoleConsumer
tool kafka-get-offsets.sh org.apache.kafka.tools.GetOffsetShell
tool kafka-metadata-quorum.sh org.apache.kafka.tools.MetadataQuorumCommand
tool kafka-storage.sh kafka.tools.StorageTool
tool kafka-transactions.sh org.apache.kafka.tools.TransactionsCommand
starter kafka-server-start.sh '${KAFKA_HEAP_OPTS:--Xmx1G -Xms1G} ${KAFKA_JVM_PERFORMANCE_OPTS:--server -XX:+UseG1GC} ${KAFKA_LOG4J_OPTS:--Dlog4j2.configurationFile=/opt/kafka/config/log4j2.yaml} $KAFKA_OPTS -Dkafka.logs.dir=/opt/kafka/logs' kafka.Kafka
chmod 755 /opt/kafka/bin/*.sh
