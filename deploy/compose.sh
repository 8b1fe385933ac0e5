#!/usr/bin/env bash
# Runs Compose, v2 or docker-compose 1.29, on the project's docker-compose.yml: deploy/compose.sh up -d, ps, down -v …
# deploy/compose.sh --secure …: the same with docker-compose.secure.yml.
# It only chooses the command; the files work with either without this script.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

find_docker || fail ENGINE-DOWN "no container engine answers" "run deploy/engine.sh up"
find_compose || fail COMPOSE-MISSING "neither 'docker compose' nor docker-compose is installed" \
  "run deploy/engine.sh up, or install the Compose plug-in of your engine"
files=(-f "$ROOT/docker-compose.yml")
if [ "${1:-}" = --secure ]; then
  files+=(-f "$ROOT/docker-compose.secure.yml")
  shift
fi
exec "${COMPOSE[@]}" "${files[@]}" "$@"
