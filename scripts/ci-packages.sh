#!/bin/sh
# Installs the Debian packages that the tests need and this machine lacks. Needs root and apt; elsewhere it does nothing,
# and `make test` names what is missing.
set -eu

[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || exit 0

missing=
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need java openjdk-17-jre-headless
need mvn maven
need chromium chromium
need chromedriver chromium-driver
[ -n "$missing" ] || exit 0

apt-get update -qq
# shellcheck disable=SC2086  a list of names
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
