#!/usr/bin/env bash
# Runs every test: formatting, lints, unit and property tests, the crash model, integration tests on the native stack,
# end-to-end scenarios on docker compose, the demonstration. `make test` calls it; its last line is "N passed, N failed".
#
# STACK_REQUIRE_COMPOSE=1  a machine without a container engine fails the tests instead of skipping the scenarios there
# RUST_TEST_THREADS        tests at the same time within one test program (2: each may run servers of its own)
#
# Test programs run in lanes, each with a log of its own, target/test-LANE.log; all are shown when all are done.
set -uo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

TARGET=$(realpath -m "${CARGO_TARGET_DIR:-target}")
LOG=$TARGET/test.log
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-2}
# The programs that native and compose stacks run: compiled here, once.
export STACK_PROGRAMS=$TARGET/debug IMAGES_PROGRAMS=$TARGET/debug
engine_started=
failed_steps=()

say() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }

step() { # step NAME COMMAND…: a failed step does not keep the others from running
  say "$1"
  "${@:2}" || { failed_steps+=("$1"); return 1; }
}

clean_up() {
  local lane
  for lane in $(jobs -p); do kill -- "-$lane" 2>/dev/null; done
  [ -z "$engine_started" ] || deploy/engine.sh down
}
trap clean_up EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# An engine that answers is used, otherwise one is started and ended again. Without any the scenarios skip themselves,
# loudly, or fail where they are required.
container_engine() {
  deploy/engine.sh status && return
  deploy/engine.sh up || return
  engine_started=yes
}

# Fail points are in a program of their own. With the whole workspace each time, so that no dependency is compiled twice.
programs() {
  cargo build --locked --workspace --bins &&
    cargo build --locked --workspace --features processor/fail-points --bin processor-with-fail-points
}

# lane NAME THREADS ARGUMENT…: test programs, with a log of their own.
lane() {
  RUST_TEST_THREADS=$2 cargo test --workspace --locked --no-fail-fast "${@:3}" >"$TARGET/test-$1.log" 2>&1
}

# beside_each_other NAME…: functions, each in a process group of its own, so that clean_up reaches cargo's children too.
beside_each_other() {
  local name lanes=() result=0
  say "$* (tail -f $TARGET/test-*.log)"
  set -m
  for name; do
    "$name" & lanes+=("$!")
  done
  set +m
  for name in "${lanes[@]}"; do wait "$name" || result=1; done
  return "$result"
}

adapter() { lane adapter 4 --test kafka_adapter; }
computing() {
  local result=0
  renice -n 19 "$BASHPID" >/dev/null
  lane computing "$RUST_TEST_THREADS" --lib --bins "${computing[@]}" || result=1
  lane documentation 1 --doc || result=1
  return "$result"
}
faults() { lane faults 4 --test native_faults; }
containers() { lane containers 1 "${containers[@]}"; }
servers() { lane servers "$RUST_TEST_THREADS" "${servers[@]}"; }

# First the adapter's tests, which mostly wait, and get the processors whenever they want them: on a busy machine connections
# break, which is what some of them look for. Meanwhile whatever needs no servers. Then all others beside each other, because
# most of the time each waits for some server's timeout.
tests() {
  local built name computing=() containers=() servers=() result=0
  built=$(cargo test --workspace --locked --no-run 2>&1) || { printf '%s\n' "$built" >&2; return 1; }
  for name in $(sed -n 's|^ *Executable tests/.*/\(.*\)-[0-9a-f]*)$|\1|p' <<<"$built" | sort -u); do
    case "$name" in
      kafka_adapter | native_faults) ;;
      compose_*) containers+=(--test "$name") ;;
      *) if [ -e "tests/tests/$name.rs" ]; then servers+=(--test "$name"); else computing+=(--test "$name"); fi ;;
    esac
  done
  beside_each_other adapter computing || result=1
  beside_each_other faults containers servers || result=1
  cat "$TARGET"/test-{adapter,computing,documentation,faults,containers,servers}.log | tee "$LOG"
  return "$result"
}

# What make demo does, as a test: it fails when what it shows is not what has to be. One that somebody has up on this
# machine is left alone.
demonstration() {
  if [ -n "$("$TARGET/debug/demo" status | grep '^up:')" ]; then
    echo "*** SKIPPED: a demonstration is up already (make down removes it) ***"
    return
  fi
  local result=0
  "$TARGET/debug/demo" up || result=1
  "$TARGET/debug/demo" down || result=1
  return "$result"
}

# reasons: of each failed test its name and the beginning of what it said, because logs of programs follow there.
reasons() {
  awk '
    /^---- .* stdout ----$/ { name = $2; lines = 0; printf "\n%s\n", name }
    name && (/^Error: / || / panicked at /) { lines = 5 }
    lines-- > 0 { print "  " substr($0, 1, 400) }' "$LOG"
}

# summary: adds up the "test result:" lines of all test programs; a step that failed otherwise counts as one failure.
summary() {
  local IFS=,
  awk -v names="${failed_steps[*]:-}" '
    /^test result:/ { passed += $4; failed += $6; ignored += $8 }
    /^test .* FAILED$/ { print }
    END {
      steps = split(names, name, ",")
      if (steps) printf "failed: %s\n", names
      for (i = 1; i <= steps; i++) if (name[i] != "tests" || !failed) others++
      if (ignored) printf "%d ignored\n", ignored
      printf "%d passed, %d failed\n", passed, failed + others
    }' "$LOG"
}

mkdir -p "$TARGET"
: >"$LOG"
step "build dependencies" deploy/install-build-deps.sh || exit 1
step "formatting" cargo fmt --all --check
step "lints" cargo clippy --workspace --all-targets --locked -- -D warnings
# With the whole workspace, so that no dependency is compiled a second time with other features.
step "lints of the fail points" cargo clippy --workspace --all-targets --features processor/fail-points --locked -- -D warnings
if step "programs" programs; then
  say "container engine"
  if container_engine; then
    step "images" deploy/images/build.sh && export STACK_IMAGES_AS_THEY_ARE=1
  elif [ -n "${STACK_REQUIRE_COMPOSE:-}" ]; then
    failed_steps+=("container engine")
  else
    echo "*** NO CONTAINER ENGINE: the scenarios on docker compose are SKIPPED, not passed (see above) ***"
  fi
fi
step "instructions per event" tests/instructions.sh
step "tests" tests
step "demonstration" demonstration
say "summary"
reasons
summary
[ "${#failed_steps[@]}" = 0 ]
