# shellcheck shell=bash
# Shared by the scripts of deploy/: messages, and which docker client and which Compose to use.
# It never starts or installs anything. Source it; it sets ROOT.

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

say()  { printf '%s %s\n' "$(date +%H:%M:%S)" "$*" >&2; }
fail() { # fail CODE WHAT REMEDY
  printf '%s: %s. To do: %s\n' "$1" "$2" "$3" >&2
  exit 1
}

# Sets DOCKER to a client that can talk to the engine (and exports DOCKER_API_VERSION when that is what it takes);
# returns 1 when no engine answers. A client may be too new for an old engine, hence more than one candidate.
find_docker() {
  local candidate version
  for candidate in docker /usr/bin/docker /usr/local/bin/docker; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    if version=$(timeout 20 "$candidate" version --format '{{.Server.APIVersion}}' 2>&1); then
      DOCKER=$candidate
      return 0
    fi
    # "client version 1.52 is too new. Maximum supported API version is 1.41", and the same with "Minimum … 1.44".
    version=$(sed -n 's/.*supported API version is \([0-9.]*\).*/\1/p' <<<"$version")
    if [ -n "$version" ] && DOCKER_API_VERSION=$version "$candidate" version >/dev/null 2>&1; then
      export DOCKER_API_VERSION=$version
      DOCKER=$candidate
      return 0
    fi
  done
  return 1
}

# Sets COMPOSE (an array) to Compose v2 where the client has it, else to docker-compose; returns 1 when there is none.
find_compose() {
  if [ -n "${DOCKER:-}" ] && "$DOCKER" compose version >/dev/null 2>&1; then
    COMPOSE=("$DOCKER" compose)
  elif command -v docker-compose >/dev/null 2>&1; then
    COMPOSE=(docker-compose)
  else
    return 1
  fi
}
