# shellcheck shell=bash disable=SC2154 # sourced by scripts/brokers, whose variables it uses
# --- certificates and passwords of a set with --tls, made anew after each wipe ---

# ca.pem signs server.pem, which is made out for 127.0.0.1 and for nothing else, so that "localhost" is a wrong
# name, and client.pem for clients; other-ca.pem has signed nothing. server.key is for the servers, server.both for Kafka, which wants one file.
make_certificates() {
  local dir=$home/tls log=$home/tls.log name
  [ ! -e "$dir" ] || return 0
  command -v openssl >/dev/null || fail tls "there is no openssl. Install Debian's package openssl."
  rm -rf "$dir.part"
  mkdir -p "$dir.part"
  (
    cd "$dir.part" || exit 1
    for name in ca other-ca; do
      openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=shakedown $name" -keyout "$name.key" -out "$name.pem"
    done
    openssl req -new -newkey rsa:2048 -nodes -subj /CN=shakedown -keyout server.key -out server.csr
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out server.pem \
      -extfile <(printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n')
    cat server.key server.pem >server.both
    openssl req -new -newkey rsa:2048 -nodes -subj /CN=shakedown -keyout client.key -out client.csr
    openssl x509 -req -in client.csr -CA ca.pem -CAkey ca.key -days 30 -out client.pem \
      -extfile <(printf 'extendedKeyUsage=clientAuth\nbasicConstraints=CA:FALSE\n')
    od -An -N16 -tx8 /dev/urandom | tr -d ' \n' >password
    # The authority's certificates are for clients too, the rest for the servers.
    chmod 600 ./*.key server.both password
    rm -f ca.key other-ca.key server.csr client.csr ca.srl
  ) >"$log" 2>&1 || fail tls "openssl could not make certificates." "$log"
  mv "$dir.part" "$dir"
}

# What every user of a set with --tls has. One bare & and one % would break an address that does not encode.
password() { printf '%s&%%' "$(cat "$home/tls/password")"; }
# What an address says of a client's certificate, by these names: something where clients have to show one.
own_certificate() { [ "$security" != mutual ] || printf '&%s=%s&%s=%s' "$1" "$home/tls/client.pem" "$2" "$home/tls/client.key"; }
encoded_password() { printf '%s%%26%%25' "$(cat "$home/tls/password")"; }
