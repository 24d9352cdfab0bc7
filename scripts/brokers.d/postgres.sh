# shellcheck shell=bash disable=SC2154 # sourced by scripts/brokers, whose variables it uses
# --- PostgreSQL: it refuses to run as root ---

as_postgres=() # the prefix of what must not run as root
[ "$(id -u)" != 0 ] || as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups)

postgres_ready() { sql postgres 'select 1' >/dev/null 2>&1; }

# The newest installed; failing (by pipefail) where there is none.
postgres_bin() { compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1 | xargs -r dirname; }

# Its directory. Root's cache is closed to the user postgres: then a link to one in /var/tmp.
postgres_dir() {
  local dir=$home/postgres elsewhere
  if [ ! -e "$dir" ]; then
    rm -f "$dir"
    mkdir -p "$dir"
    if [ "$(id -u)" = 0 ]; then
      chown postgres: "$dir"
      if ! "${as_postgres[@]}" test -w "$dir"; then
        elsewhere=$(mktemp -d /var/tmp/shakedown-postgres.XXXXXX)
        chown postgres: "$elsewhere"
        rmdir "$dir"
        ln -s "$elsewhere" "$dir"
      fi
    fi
  fi
  readlink -f "$dir"
}

postgres_address() {
  if [ "$security" = plain ]; then
    printf 'postgres://postgres@127.0.0.1:%s/shakedown' "$(port_of postgres)"
  else
    printf 'postgres://postgres:%s@127.0.0.1:%s/shakedown?sslmode=verify-full&sslrootcert=%s' \
      "$(encoded_password)" "$(port_of postgres)" "$home/tls/ca.pem"
    own_certificate sslcert sslkey
  fi
}

# sql DATABASE STATEMENT, as the superuser.
sql() {
  local protected=()
  [ "$security" = plain ] || protected=(PGPASSWORD="$(password)" PGSSLMODE=verify-full PGSSLROOTCERT="$home/tls/ca.pem"
    PGSSLCERT="$home/tls/client.pem" PGSSLKEY="$home/tls/client.key")
  env PGCONNECT_TIMEOUT=2 "${protected[@]}" "$(postgres_bin)/psql" -h 127.0.0.1 -p "$(port_of postgres)" -U postgres \
    -X -A -t -q -d "$1" -c "$2"
}

start_postgres() {
  local dir bin log login=(-A trust) protected=()
  bin=$(postgres_bin) || fail postgres "no server in /usr/lib/postgresql. Install Debian's package postgresql."
  log=$(log_of postgres)
  dir=$(postgres_dir)
  cd "$dir" || fail postgres "its folder $dir is not accessible."
  need_free postgres
  if [ "$security" != plain ]; then
    (umask 077 && cp "$home/tls/ca.pem" "$home/tls/server.pem" "$home/tls/server.key" "$dir/" && password >"$dir/password")
    [ "$(id -u)" != 0 ] || chown postgres: "$dir"/{ca,server}.pem "$dir/server.key" "$dir/password"
    echo "hostssl all all 127.0.0.1/32 scram-sha-256$([ "$security" != mutual ] || echo ' clientcert=verify-ca')" >"$dir/hba.conf"
    login=(-A scram-sha-256 --pwfile "$dir/password")
    protected=(-c ssl=on -c ssl_cert_file="$dir/server.pem" -c ssl_key_file="$dir/server.key" -c ssl_ca_file="$dir/ca.pem"
      -c hba_file="$dir/hba.conf")
  fi
  if [ ! -e "$dir/data.complete" ]; then
    rm -rf "$dir/data"
    "${as_postgres[@]}" "$bin/initdb" -D "$dir/data" -U postgres "${login[@]}" -E UTF8 --locale=C --no-sync --no-instructions >"$log" 2>&1 ||
      fail postgres "initdb failed." "$log"
    touch "$dir/data.complete"
  fi
  # After a crash the old server's children need a moment to go. Once no process is left on the data, its lock
  # file is stale, though the pid in it may still show as a zombie, which the new server takes for a live one.
  for _ in $(seq 100); do
    if ! grep -qxF "$dir/data" <(readlink /proc/[0-9]*/cwd 2>/dev/null); then
      rm -f "$dir/data/postmaster.pid"
      break
    fi
    sleep 0.1
  done
  launch postgres "${as_postgres[@]}" "$bin/postgres" -D "$dir/data" -p "$(port_of postgres)" \
    -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200 "${protected[@]}"
}
