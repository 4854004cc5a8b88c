#!/bin/sh
# The browser tests drive a real Chromium.
set -eu

for program in chromium chromedriver; do
    command -v "$program" >/dev/null 2>&1 && continue
    printf 'driftline tests: %s is missing; the browser tests drive a real Chromium\n' "$program" >&2
    printf '  apt-get install chromium chromium-driver\n' >&2
    exit 1
done
