#!/usr/bin/env bash
# Runs Compose, v2 or docker-compose 1.29, on the project's docker-compose.yml: deploy/compose.sh up -d, ps, down -v …
# It only chooses the command; the file works with either without this script.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

find_docker || fail ENGINE-DOWN "no container engine answers" "run deploy/engine.sh up"
find_compose || fail COMPOSE-MISSING "neither 'docker compose' nor docker-compose is installed" \
  "run deploy/engine.sh up, or install the Compose plug-in of your engine"
exec "${COMPOSE[@]}" -f "$ROOT/docker-compose.yml" "$@"
