#!/usr/bin/env bash
# fuzz.sh SECONDS [TARGET…]: gives each target to libFuzzer for so long, then reduces its corpus to what reaches code that
# nothing smaller reaches, and puts it into tests/fuzz/corpus. `make fuzz` calls it. A target that fails leaves the input
# under target/fuzz/failures, and the corpus as it was.
#
# No sanitizer: the decoders have no unsafe code, and without one the stable compiler will do. What they allocate the targets
# count themselves.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. deploy/lib.sh

SECONDS_EACH=$1
TARGETS=("${@:2}")
command -v cargo-fuzz >/dev/null || fail CARGO-FUZZ "cargo-fuzz is not installed" "cargo install --locked cargo-fuzz"

WORK=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
cargo run --quiet --locked --release -p fuzz --bin seeds -- "$WORK/seeds"
# A directory for each target.
[ "${#TARGETS[@]}" -gt 0 ] || mapfile -t TARGETS < <(ls "$WORK/seeds")
for target in "${TARGETS[@]}"; do
  found=$WORK/found/$target
  corpus=tests/fuzz/corpus/$target
  mkdir -p "$found" "$corpus" "$WORK/failures/$target"
  say "$target for $SECONDS_EACH s"
  cargo fuzz run --fuzz-dir tests/fuzz --target-dir "$WORK/build" --sanitizer none --features libfuzzer \
    "$target" "$found" "$corpus" "$WORK/seeds/$target" -- \
    -max_total_time="$SECONDS_EACH" -max_len=8192 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
    -artifact_prefix="$WORK/failures/$target/" 2>&1 | tee "$WORK/$target.log" | grep -E '^(stat::|SUMMARY|==|thread)|panicked' ||
    fail FUZZ "$target failed" "see $WORK/$target.log; the input is under $WORK/failures/$target"
  # The program itself: cargo would look whether it has to build it again. Coverage of places, not of how often each is
  # passed, or a corpus would be four times as large.
  reduced=$(mktemp -d "$WORK/reduced.XXXXXX")
  "$WORK"/build/*/release/"$target" "$reduced" "$found" "$corpus" "$WORK/seeds/$target" \
    -set_cover_merge=1 -use_counters=0 -max_len=8192 2>>"$WORK/$target.log" >/dev/null
  rm -rf "$corpus" && mkdir -p "$corpus"
  # Named by their content, so that the same input has the same name for ever.
  for file in "$reduced"/*; do cp "$file" "$corpus/$(sha1sum <"$file" | cut -c1-16)"; done
  rm -rf "$reduced"
  say "$target: $(find "$corpus" -type f | wc -l) inputs kept, $(du -sb "$corpus" | cut -f1) bytes"
done
