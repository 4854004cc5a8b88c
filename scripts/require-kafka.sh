#!/bin/sh
# The tests run against a real Kafka broker: yours (KAFKA_BOOTSTRAP=host:port), or one that they start with Java and Maven.
set -eu

[ -z "${KAFKA_BOOTSTRAP:-}" ] || exit 0

fail() {
    printf 'driftline tests: %s\n' "$*" >&2
    printf '  apt-get install openjdk-17-jre-headless maven\n' >&2
    printf '  or name a running broker: KAFKA_BOOTSTRAP=localhost:9092 make test\n' >&2
    exit 1
}

command -v java >/dev/null 2>&1 || fail "java is missing; the tests start a real Kafka broker, which needs Java 17 or newer"
command -v mvn >/dev/null 2>&1 || fail "mvn is missing; the tests fetch the Kafka broker with Maven"
major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
[ "${major:-0}" -ge 17 ] || fail "Java $major is too old; the Kafka broker needs Java 17 or newer"
