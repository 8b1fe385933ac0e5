#!/usr/bin/env bash
# Counts the instructions that the stream program spends on a change event and on a replayed changelog record, without
# clients and store, and fails when they have grown by more than a tenth. Instructions, not seconds: the same on a busy
# machine. Needs valgrind (installed here where apt-get may).
#
# When a change makes them better, lower the budgets; when it makes
# them worse for a good reason, raise them and say why in the commit.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

EVENTS=20000
PROCESS_BUDGET=16500
RESTORE_BUDGET=3300

if ! command -v valgrind >/dev/null; then
  [ "$(id -u)" = 0 ] || { echo "valgrind is missing. To do: sudo apt-get install valgrind" >&2; exit 1; }
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update && apt-get -qq -y --no-install-recommends install valgrind >/dev/null
fi
cargo build --locked --release -p processor-application --example instructions
program=$(realpath -m "${CARGO_TARGET_DIR:-target}")/release/examples/instructions

count() { # count MODE: instructions of one run
  valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$EVENTS" 2>&1 >/dev/null |
    awk '/Collected/ { print $4 }'
}

generate=$(count generate) process=$(count process) restore=$(count restore)
failed=
judge() { # judge WHAT INSTRUCTIONS BUDGET
  local each=$(($2 / EVENTS))
  echo "$1: $each instructions each, budget $3"
  [ "$each" -le "$(($3 * 11 / 10))" ] || failed=yes
}
echo "$EVENTS events"
judge "processing a change event" $((process - generate)) "$PROCESS_BUDGET"
judge "replaying a changelog record" $((restore - process)) "$RESTORE_BUDGET"
[ -z "$failed" ] || { echo "more than a tenth above the budget" >&2; exit 1; }
