#!/usr/bin/env bash
# Prints how long recovery took by kind of fault, median and largest in seconds: tests/recovery-times.sh FILE
#
# FILE has a line for each fault, as tests with RECOVERY_TIMES=FILE write it: kind, seconds until every partition had gone
# on, seconds until everything that had come by then was through; separated by tabs.
set -euo pipefail

[ -s "${1:?usage: tests/recovery-times.sh FILE}" ] || { echo "no recovery was measured"; exit 0; }

# median_and_largest COLUMN: a line "kind, times, median, largest" for each kind, in order of kinds.
median_and_largest() {
  cut -f "1,$1" "$FILE" | sort -t $'\t' -k 1,1 -k 2,2n | awk -F '\t' '
    function flush() { if (times) printf "%s\t%d\t%.1f\t%.1f\n", kind, times, value[int((times + 1) / 2)], value[times] }
    $1 != kind { flush(); kind = $1; times = 0 }
    { value[++times] = $2 }
    END { flush() }'
}

FILE=$1
{
  printf 'seconds after a fault\ttimes\tmoves: median\tlargest\tcaught up: median\tlargest\n'
  join -t $'\t' -o 1.1,1.2,1.3,1.4,2.3,2.4 <(median_and_largest 2) <(median_and_largest 3)
} | column -t -s $'\t'
