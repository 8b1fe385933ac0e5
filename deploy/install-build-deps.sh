#!/bin/sh
# Installs what building the workspace needs beside the Rust toolchain, on Debian and Ubuntu. Safe to run again.
#
# librdkafka is compiled from the sources its crate carries (C and C++ compiler, make, pkg-config, headers of zlib, of
# OpenSSL for TLS and SASL, of libcurl for the token endpoint of OAUTHBEARER); zstd and LMDB come with their crates.
# Elsewhere install the same by hand. The programs then need libssl, libcrypto, libcurl and libz at run time.
set -eu

packages="gcc g++ make pkg-config zlib1g-dev libssl-dev libcurl4-openssl-dev"

missing=""
for package in $packages; do
    if ! dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed'; then
        missing="$missing $package"
    fi
done

if [ -z "$missing" ]; then
    echo "build dependencies: nothing to install"
    exit 0
fi
if [ "$(id -u)" != 0 ]; then
    echo "build dependencies missing:$missing" >&2
    echo "To do: sudo apt-get install$missing" >&2
    exit 1
fi
echo "build dependencies: installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# shellcheck disable=SC2086 # a list of packages
apt-get -qq -y --no-install-recommends install $missing
