#!/usr/bin/env bash
# A container engine for machines that have none: deploy/engine.sh up | down | status | variables
#
#   up         uses the engine that answers; otherwise starts one, installing what is missing (Debian and Ubuntu, as root)
#   down       ends the dockerd that 'up' started from this checkout, and no other
#   status     says which engine, client and Compose are in use
#   variables  the same for programs: DOCKER, COMPOSE (a command line), DOCKER_API_VERSION where one has to be set
#
# ENGINE_STATE (default .images/engine) keeps dockerd's pid file and log. Images and volumes stay where the engine keeps
# them (/var/lib/docker unless ENGINE_DATA_ROOT is set), so that a second checkout need not build the images again.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

STATE=${ENGINE_STATE:-$ROOT/.images/engine}
PID_FILE=$STATE/dockerd.pid
LOG=$STATE/dockerd.log
START_SECONDS=60

# The pid of the dockerd that this checkout started, if it still lives: a pid alone may belong to somebody else by now.
own_pid() {
  local pid
  pid=$(cat "$PID_FILE" 2>/dev/null) || return 1
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || return 1
  tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qxF -- "--pidfile=$PID_FILE" || return 1
  echo "$pid"
}

# install_packages PACKAGE…: the one place that changes the machine.
install_packages() {
  [ "$(id -u)" = 0 ] || fail ENGINE-NOT-ROOT "$* must be installed, and that needs root" "install them, or run this as root"
  command -v apt-get >/dev/null || fail ENGINE-NO-APT "$* cannot be installed: this is no Debian or Ubuntu" \
    "install a container engine with Compose by your system's own means"
  mkdir -p "$STATE"
  say "installing $* (log: $STATE/apt.log)"
  {
    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
  } >"$STATE/apt.log" 2>&1 || fail ENGINE-INSTALL "apt-get could not install $*" "see $STATE/apt.log"
}

# wait_for_answer PID: until the engine answers; fails when the process ends before, or the time is over.
wait_for_answer() {
  local second
  for ((second = 0; second < START_SECONDS; second++)); do
    ! find_docker || return 0
    kill -0 "$1" 2>/dev/null || return 1
    sleep 1
  done
  return 1
}

start_dockerd() {
  [ "$(id -u)" = 0 ] || fail ENGINE-NOT-ROOT "no engine answers and dockerd needs root" \
    "start your engine, join its group (docker), or run this as root"
  local arguments=(--pidfile="$PID_FILE")
  [ -z "${ENGINE_DATA_ROOT:-}" ] || arguments+=(--data-root="$ENGINE_DATA_ROOT")
  mkdir -p "$STATE"
  rm -f "$PID_FILE"
  say "starting dockerd (log: $LOG)"
  # A session of its own: it must outlive this script and not take the terminal's Ctrl-C.
  setsid nohup dockerd "${arguments[@]}" >"$LOG" 2>&1 </dev/null &
  local child=$!
  wait_for_answer "$child" && return
  tail -n 15 "$LOG" >&2
  fail ENGINE-START "dockerd does not answer" \
    "see $LOG; it needs a privileged machine (mounts, cgroups, iptables); without one use the native stack"
}

start_engine() {
  # The package's own scripts may just be starting one; two would fight over the socket.
  local starting
  if starting=$(pidof -s dockerd) && wait_for_answer "$starting"; then return 0; fi
  if [ -d /run/systemd/system ] && systemctl list-unit-files docker.service >/dev/null 2>&1; then
    systemctl start docker && find_docker && return 0
  fi
  start_dockerd
}

up() {
  if ! find_docker; then
    local missing=()
    command -v dockerd >/dev/null || missing+=(docker.io)
    command -v iptables >/dev/null || missing+=(iptables)
    [ "${#missing[@]}" = 0 ] || install_packages "${missing[@]}"
    find_docker || start_engine
  fi
  find_compose || { install_packages docker-compose && find_compose; } ||
    fail COMPOSE-MISSING "no Compose after installing docker-compose" "install the Compose plug-in of your engine"
  status
}

find_both() {
  find_docker || fail ENGINE-DOWN "no container engine answers" "run deploy/engine.sh up"
  find_compose || fail COMPOSE-MISSING "neither 'docker compose' nor docker-compose is installed" "run deploy/engine.sh up"
}

variables() {
  find_both
  printf '%s\n' "DOCKER=$DOCKER" "COMPOSE=${COMPOSE[*]}" "DOCKER_API_VERSION=${DOCKER_API_VERSION:-}"
}

status() {
  find_both
  say "engine $("$DOCKER" version --format '{{.Server.Version}}, client {{.Client.Version}}') ($DOCKER)," \
    "Compose $("${COMPOSE[@]}" version --short) (${COMPOSE[*]})," \
    "$(own_pid >/dev/null && echo "started from here, pid $(own_pid)" || echo "not started from here")"
}

down() {
  local pid second
  pid=$(own_pid) || { say "no dockerd was started from here"; return 0; }
  say "ending dockerd $pid"
  kill -TERM "$pid"
  for ((second = 0; second < START_SECONDS; second++)); do
    own_pid >/dev/null || { say "ended"; return 0; }
    sleep 1
  done
  fail ENGINE-STOP "dockerd $pid does not end" "see $LOG"
}

case "${1:-}" in
  up | down | status | variables) "$1" ;;
  *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
