#!/usr/bin/env bash
# Sees to it that every image of docker-compose.yml exists: deploy/images/build.sh [--no-pull] [IMAGE…]
#
# An image that is there is kept. One that can be pulled is pulled. Any other is built, under its official name and tag,
# from Debian and Maven packages, so that the same compose file runs where no image registry can be reached; our own two
# get the release binaries compiled on the host. Built images are rebuilt when what they are made of has changed.
#
# IMAGE: kafka connect registry postgres processor sink (default: all). --no-pull never asks an image registry.
# IMAGES_CACHE (default .images/cache) keeps what was downloaded. Needs root for debootstrap only.
# IMAGES_PROGRAMS names a directory with our two compiled already (tests and demo: one build for everything); nothing
# is compiled then.
set -euo pipefail
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
. "$HERE/../lib.sh"

CACHE=${IMAGES_CACHE:-$ROOT/.images/cache}
LOGS=$ROOT/.images/log
INPUTS=stock.image.inputs # the label with the fingerprint of what a built image was made of
PULL=yes

DEBIAN_SUITE=trixie
MAVEN_PLUGIN=org.apache.maven.plugins:maven-dependency-plugin:3.8.1
DEBEZIUM=io.debezium:debezium-connector-postgres:3.6.0.Final:tar.gz:plugin
REGISTRY=io.apicurio:apicurio-registry-app:3.3.3:tar.gz:all
# The newest there is; the official image of Connect has it, too (ENABLE_APICURIO_CONVERTERS).
CONVERTERS=io.apicurio:apicurio-registry-utils-converter:2.6.13.Final

BASE_TAG=debian:$DEBIAN_SUITE-slim
JRE_TAG=stock-base-jre:21
LIBS_TAG=stock-base-kafka:4.3.1
KAFKA_TAG=apache/kafka:4.3.1
CONNECT_TAG=quay.io/debezium/connect:3.6.0.Final
REGISTRY_TAG=apicurio/apicurio-registry:3.3.3
POSTGRES_TAG=postgres:17

# quietly NAME COMMAND…: its output goes to a log, which is shown when it fails.
quietly() {
  local log=$LOGS/$1.log started=$SECONDS
  say "$1 …"
  "${@:2}" >"$log" 2>&1 || { tail -n 20 "$log" >&2; fail IMAGE-BUILD "$1 failed" "see $log"; }
  say "$1: $((SECONDS - started)) s"
}

present() { "$DOCKER" image inspect "$1" >/dev/null 2>&1; }
label()   { "$DOCKER" image inspect -f "{{index .Config.Labels \"$INPUTS\"}}" "$1" 2>/dev/null || true; }

# have TAG: it is there and not one of ours (those are compared with their inputs), or could be pulled.
# The first image that cannot be pulled settles the question for all: no registry here.
have() {
  if present "$1" && [ -z "$(label "$1")" ]; then return 0; fi
  if present "$1" || [ "$PULL" = no ]; then return 1; fi
  say "pulling $1 …"
  timeout 600 "$DOCKER" pull "$1" >"$LOGS/pull.log" 2>&1 && return 0
  say "cannot be pulled ($(tail -n 1 "$LOGS/pull.log" | cut -c1-120)): building from packages"
  PULL=no
  return 1
}

# fingerprint PATH…: of the contents of files, and of the names alone in directories of downloads (versions are in the names).
fingerprint() {
  local path
  for path in "$@"; do
    case "$path" in
      "$CACHE"/*) (cd "$path" && find . -type f | sort) ;;
      *) (cd "$path" && find . -type f | sort | xargs sha256sum) ;;
    esac
  done | sha256sum | cut -c1-32
}

# build TAG PARENT DIRECTORY [DOWNLOAD=NAME]…: the image of DIRECTORY/Dockerfile, with downloads beside it in the context.
build() {
  local tag=$1 parent=$2 directory=$3 context inputs pair downloads=()
  for pair in "${@:4}"; do downloads+=("${pair%%=*}"); done
  inputs=$(fingerprint "$HERE/$directory" "${downloads[@]}")-$("$DOCKER" image inspect -f '{{.Id}}' "$parent" | cut -c8-19)
  if [ "$(label "$tag")" = "$inputs" ]; then
    say "$tag: up to date"
    return
  fi
  context=$CACHE/context/$directory
  rm -rf "$context"
  mkdir -p "$context"
  cp "$HERE/$directory"/* "$context/"
  for pair in "${@:4}"; do cp -al "${pair%%=*}" "$context/${pair#*=}"; done # hard links: no second copy on disk
  quietly "build-$directory" "$DOCKER" build --label "$INPUTS=$inputs" -t "$tag" "$context"
  rm -rf "$context"
}

need() { # need COMMAND PACKAGE
  command -v "$1" >/dev/null && return
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
    fail IMAGE-TOOL "$1 is missing" "install it (Debian: apt-get install $2)"
  quietly "install-$2" env DEBIAN_FRONTEND=noninteractive sh -c "apt-get update && apt-get install -y --no-install-recommends $2"
}

# download NAME COMMAND…: into $CACHE/NAME, whole or not at all; the command gets the directory as its last argument.
download() {
  local directory=$CACHE/$1
  [ ! -d "$directory" ] || return 0
  rm -rf "$directory.part"
  mkdir -p "$directory.part"
  quietly "download-$1" "${@:2}" "$directory.part"
  mv "$directory.part" "$directory"
}

maven_libs() { # maven_libs POM DIRECTORY
  mvn -B -ntp -q -f "$1" "$MAVEN_PLUGIN:copy-dependencies" -DincludeScope=runtime -DoutputDirectory="$2"
}

maven_archive() { # maven_archive ARTIFACT DIRECTORY: unpacked
  mvn -B -ntp -q "$MAVEN_PLUGIN:copy" -Dartifact="$1" -DoutputDirectory="$2/archive" &&
    tar -C "$2" -xzf "$2"/archive/*.tar.gz && rm -r "$2/archive"
}

# Kafka's own classes come from Connect; those of another version beside them do not fit.
maven_closure() { # maven_closure GROUP:ARTIFACT:VERSION DIRECTORY: with all it needs at run time
  local pom group artifact version
  pom=$(mktemp --suffix=.xml)
  IFS=: read -r group artifact version <<<"$1"
  printf '%s' "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>" \
    "<groupId>images</groupId><artifactId>closure</artifactId><version>1</version><packaging>pom</packaging><dependencies>" \
    "<dependency><groupId>$group</groupId><artifactId>$artifact</artifactId><version>$version</version></dependency>" \
    "</dependencies></project>" >"$pom"
  mvn -B -ntp -q -f "$pom" "$MAVEN_PLUGIN:copy-dependencies" -DincludeScope=runtime -DexcludeGroupIds=org.apache.kafka \
    -DoutputDirectory="$2"
  rm -f "$pom"
}

download_kafka_libs() { need mvn maven; download "kafka-libs-4.3.1" maven_libs "$HERE/kafka-libs/pom.xml"; }
download_debezium()   { need mvn maven; download "debezium-3.6.0.Final" maven_archive "$DEBEZIUM"; }
download_converters() { need mvn maven; download "converters-2.6.13" maven_closure "$CONVERTERS"; }
download_registry()   { need mvn maven; download "apicurio-3.3.3" maven_archive "$REGISTRY"; }

import_base() { # import_base DIRECTORY
  debootstrap --variant=minbase --include=ca-certificates "$DEBIAN_SUITE" "$1" &&
    rm -rf "$1"/var/cache/apt/*.bin "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/* &&
    tar -C "$1" -c . | "$DOCKER" import - "$BASE_TAG"
}

ensure_base() {
  have "$BASE_TAG" && return
  [ "$(id -u)" = 0 ] || fail IMAGE-NOT-ROOT "debootstrap needs root" "run this as root once, or load $BASE_TAG yourself"
  need debootstrap debootstrap
  local directory
  directory=$(mktemp -d)
  quietly "debootstrap-$DEBIAN_SUITE" import_base "$directory"
  rm -rf --one-file-system "$directory"
}

ensure_jre()      { ensure_base; build "$JRE_TAG" "$BASE_TAG" jre; }
ensure_libs()     { ensure_jre; download_kafka_libs; build "$LIBS_TAG" "$JRE_TAG" kafka-libs "$CACHE/kafka-libs-4.3.1=libs"; }
ensure_kafka()    { have "$KAFKA_TAG" || { ensure_libs; build "$KAFKA_TAG" "$LIBS_TAG" kafka; }; }
ensure_connect()  { have "$CONNECT_TAG" || { ensure_libs; download_debezium; download_converters; build "$CONNECT_TAG" "$LIBS_TAG" connect "$CACHE/debezium-3.6.0.Final=plugins" "$CACHE/converters-2.6.13=converters"; }; }
ensure_registry() { have "$REGISTRY_TAG" || { ensure_jre; download_registry; build "$REGISTRY_TAG" "$JRE_TAG" registry "$CACHE/apicurio-3.3.3=app"; }; }
ensure_postgres() { have "$POSTGRES_TAG" || { ensure_base; build "$POSTGRES_TAG" "$BASE_TAG" postgres; }; }

# ours NAME: with the binary compiled here, when there is a compiler and no pulled base means no rust image either.
ours() {
  local name=$1 context=$CACHE/context/$1 inputs
  if [ -z "${IMAGES_PROGRAMS:-}" ] && ! command -v cargo >/dev/null; then
    quietly "build-$name" "$DOCKER" build -t "stock-$name" -f "$HERE/$name/Dockerfile" "$ROOT"
    return
  fi
  ensure_base
  local programs=${IMAGES_PROGRAMS:-}
  if [ -z "$programs" ]; then
    programs=${CARGO_TARGET_DIR:-$ROOT/target}/release
    say "compiling $name (release) …"
    (cd "$ROOT" && cargo build --release --locked -p "$name" >&2) || fail IMAGE-COMPILE "$name does not compile" "see above"
  fi
  [ -x "$programs/$name" ] || fail IMAGE-PROGRAM "there is no $name in $programs" "compile it, or unset IMAGES_PROGRAMS"
  rm -rf "$context"
  mkdir -p "$context"
  cp "$programs/$name" "$context/"
  inputs=$(fingerprint "$HERE/$name")-$(sha256sum "$context/$name" | cut -c1-32)
  if [ "$(label "stock-$name")" = "$inputs" ]; then
    say "stock-$name: up to date"
  else
    quietly "build-$name" "$DOCKER" build --target prebuilt --label "$INPUTS=$inputs" -t "stock-$name" \
      -f "$HERE/$name/Dockerfile" "$context"
  fi
  rm -rf "$context"
}
ensure_processor() { ours processor; }
ensure_sink()      { ours sink; }

# Downloads need the network and debootstrap the disk: let them overlap when everything has to be built.
overlap_downloads() {
  PULL=no
  (download_kafka_libs && download_debezium && download_converters && download_registry) &
  local maven=$!
  ensure_jre
  ensure_postgres
  wait "$maven" || fail IMAGE-DOWNLOAD "Maven artifacts could not be downloaded" "see $LOGS; is Maven Central reachable?"
}

main() {
  local wanted=() argument started=$SECONDS
  for argument in "$@"; do
    case "$argument" in
      --no-pull) PULL=no ;;
      kafka | connect | registry | postgres | processor | sink) wanted+=("$argument") ;;
      *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
  done
  find_docker || fail ENGINE-DOWN "no container engine answers" "run deploy/engine.sh up"
  mkdir -p "$CACHE" "$LOGS"
  # One at a time: two builders would tear the cache from under each other.
  exec 9>"$CACHE/.lock"
  flock 9
  if [ "${#wanted[@]}" = 0 ]; then
    wanted=(kafka connect registry postgres processor sink)
    have "$KAFKA_TAG" || overlap_downloads
  fi
  for argument in "${wanted[@]}"; do "ensure_$argument"; done
  # What a rebuilt image was before; nobody can name it any more.
  "$DOCKER" image prune -f --filter "label=$INPUTS" >/dev/null
  say "images are there: $((SECONDS - started)) s"
}

main "$@"
