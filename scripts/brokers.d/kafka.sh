# shellcheck shell=bash disable=SC2154 # sourced by scripts/brokers, whose variables it uses
# --- Kafka: combined KRaft nodes, one or three ---

KAFKA_VERSION=4.3.1
KAFKA_CLUSTER_ID=c2hha2Vkb3duLWxvY2FsMQ # 16 bytes in base64url, the form that Kafka wants

# ApiVersions, version 0
kafka_ready() { answers "$(port_of "$1")" '\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff'; }

fetch_kafka() {
  local jars=$home/kafka/jars-$KAFKA_VERSION log=$home/kafka/fetch.log
  [ ! -e "$jars" ] || return 0
  mkdir -p "$home/kafka"
  say kafka "fetching $KAFKA_VERSION (44 MB, once)"
  rm -rf "$jars.part"
  cat >"$home/kafka/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>shakedown</groupId><artifactId>kafka-server</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$KAFKA_VERSION</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
XML
  timeout 600 mvn -B -q -f "$home/kafka/pom.xml" \
    org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$jars.part" >"$log" 2>&1 ||
    fail kafka "Maven could not fetch the jars. Check the network (or Maven's settings.xml), then run $me up again." "$log"
  mv "$jars.part" "$jars"
}

# What an address has behind its brokers.
kafka_access() {
  [ "$security" != plain ] || return 0
  printf '?security.protocol=SASL_SSL&sasl.mechanism=%s&sasl.username=shakedown&sasl.password=%s&ssl.ca.location=%s' \
    "${SHAKEDOWN_BROKERS_MECHANISM:-SCRAM-SHA-512}" "$(encoded_password)" "$home/tls/ca.pem"
  own_certificate ssl.certificate.location ssl.key.location
}

# Clients and brokers by SASL over TLS, which asks for a certificate only where its listener says so (KIP-684);
# only the controllers, on loopback, speak in plain text.
kafka_security() {
  local login=org.apache.kafka.common.security
  cat <<PROPERTIES
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=$login.plain.PlainLoginModule required username="broker" \\
  password="$(password)" user_broker="$(password)" user_shakedown="$(password)";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=$login.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=$login.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location=$home/tls/server.both
listener.name.sasl_ssl.ssl.client.auth=$([ "$security" = mutual ] && echo required || echo none)
ssl.truststore.type=PEM
ssl.truststore.location=$home/tls/ca.pem
PROPERTIES
}

# Properties of the server NAME. Of three, two must have a record before it counts as written.
kafka_properties() {
  local name=$1 client controller id=1 voters minimum=1 protocol=PLAINTEXT
  client=127.0.0.1:$(port_of "$name")
  controller=127.0.0.1:$(port_of "$name-controller")
  voters=1@127.0.0.1:$(port_of kafka-1-controller)
  if [ "$kafka_count" = 3 ]; then
    id=${name#kafka-}
    voters+=,2@127.0.0.1:$(port_of kafka-2-controller),3@127.0.0.1:$(port_of kafka-3-controller)
    minimum=2
  fi
  [ "$security" = plain ] || protocol=SASL_SSL
  # A short broker session makes a restart after kill -9 take 3 s, not 12; short group sessions are for tests,
  # and so is a cleaner that looks for something to compact twice a second.
  cat <<PROPERTIES
process.roles=broker,controller
node.id=$id
controller.quorum.voters=$voters
listeners=$protocol://$client,CONTROLLER://$controller
advertised.listeners=$protocol://$client
listener.security.protocol.map=CONTROLLER:PLAINTEXT,$protocol:$protocol
controller.listener.names=CONTROLLER
inter.broker.listener.name=$protocol
log.dirs=$home/$name/data
auto.create.topics.enable=false
default.replication.factor=$kafka_count
min.insync.replicas=$minimum
offsets.topic.replication.factor=$kafka_count
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=$kafka_count
transaction.state.log.min.isr=$minimum
transaction.state.log.num.partitions=3
share.coordinator.state.topic.replication.factor=$kafka_count
share.coordinator.state.topic.min.isr=$minimum
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=300
group.consumer.session.timeout.ms=3000
group.consumer.heartbeat.interval.ms=500
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
log.cleaner.backoff.ms=500
PROPERTIES
  [ "$security" = plain ] || kafka_security
}

start_kafka() {
  local name=$1 dir=$home/$1 memory=512m jvm log users=() mechanism
  log=$(log_of "$name")
  mkdir -p "$dir"
  need_free "$name"
  need_free "$name-controller"
  [ "$kafka_count" = 1 ] || memory=256m
  (umask 077 && kafka_properties "$name" >"$dir/server.properties")
  if [ "$security" != plain ]; then
    for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do
      users+=(--add-scram "$mechanism=[name=shakedown,password=$(password)]")
    done
  fi
  jvm=("-Xms$memory" "-Xmx$memory" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.net.preferIPv4Stack=true
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true
    -cp "$home/kafka/jars-$KAFKA_VERSION/*")
  if [ ! -e "$dir/data.complete" ]; then
    rm -rf "$dir/data"
    java "${jvm[@]}" kafka.tools.StorageTool format -t "$KAFKA_CLUSTER_ID" -c "$dir/server.properties" "${users[@]}" >"$log" 2>&1 ||
      fail "$name" "its storage could not be formatted. Kafka $KAFKA_VERSION wants Java 17 or later as \`java\`." "$log"
    touch "$dir/data.complete"
  fi
  launch "$name" java "${jvm[@]}" kafka.Kafka "$dir/server.properties"
}
