#!/bin/bash
# Makes certificates: deploy/secure/certificates.sh DIRECTORY NAME=HOST,…[@OWNER] …
#
# DIRECTORY/ca.crt is an authority of its own, made here and forgotten at once: it signs nothing later. For each NAME there
# are NAME.crt, NAME.key (PKCS #8, unencrypted) and NAME.pem (both, as Kafka takes them); the subject is CN=NAME, valid
# for the hosts. Keys can be read by OWNER (a user's name or number) alone. What is there already stays: remove the
# directory for new ones. Needs openssl. Good for tests and the secure stack on one machine; in production your own
# authority issues them.
set -euo pipefail

[ "$#" -ge 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
directory=$1
shift
days=825

if [ -s "$directory/ca.crt" ]; then
  echo "certificates are there: $directory"
  exit 0
fi
command -v openssl >/dev/null || {
  echo "CERTIFICATES-NO-OPENSSL: openssl is missing. To do: install it (Debian: apt-get install openssl)" >&2
  exit 1
}
umask 077
mkdir -p "$directory"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

new_key "$work/ca.key"
openssl req -x509 -new -key "$work/ca.key" -sha256 -days "$days" -subj "/CN=stock authority" -out "$work/ca.crt" \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign

for request in "$@"; do
  owner=
  case "$request" in *@*) owner=${request##*@}; request=${request%@*} ;; esac
  name=${request%%=*}
  hosts=${request#*=}
  new_key "$directory/$name.key"
  openssl req -new -key "$directory/$name.key" -subj "/CN=$name" -out "$work/$name.csr"
  printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature\n' \
    "${hosts//,/,DNS:}" >"$work/$name.ext"
  openssl x509 -req -in "$work/$name.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial -sha256 \
    -days "$days" -extfile "$work/$name.ext" -out "$directory/$name.crt" 2>/dev/null
  cat "$directory/$name.key" "$directory/$name.crt" >"$directory/$name.pem"
  chmod 644 "$directory/$name.crt"
  [ -z "$owner" ] || chown "$owner" "$directory/$name.key" "$directory/$name.pem"
done
chmod 755 "$directory"
chmod 644 "$work/ca.crt"
# Last: it says that everything else is there.
cp -p "$work/ca.crt" "$directory/ca.crt"
echo "certificates made: $directory"
