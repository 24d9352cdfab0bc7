# shellcheck shell=bash disable=SC2154 # sourced by scripts/brokers, whose variables it uses
# --- RabbitMQ: the package's server with a node, cookie and port mapper of its own ---

rabbitmq_ready() { answers "$(port_of rabbitmq)" 'AMQP\x00\x00\x09\x01'; }

rabbitmq_address() {
  if [ "$security" = plain ]; then
    printf 'amqp://guest:guest@127.0.0.1:%s/%%2f' "$(port_of rabbitmq)"
  else
    printf 'amqps://shakedown:%s@127.0.0.1:%s/%%2f?cacertfile=%s' "$(encoded_password)" "$(port_of rabbitmq)" "$home/tls/ca.pem"
    own_certificate certfile keyfile
  fi
}

# The newest installed under a root; failing (by pipefail) where there is none.
rabbitmq_sbin() { compgen -G "${1:-}/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin" | sort -V | tail -n 1; }

# Debian 13 in a folder, for its RabbitMQ.
fetch_debian_13() {
  local folder=$home/debian-13 log=$home/debian-13.log
  [ ! -e "$folder" ] || return 0
  [ "$(id -u)" = 0 ] || fail rabbitmq "version 4.0 runs in a folder with Debian 13, which needs root. Run as root, or with --rabbit 3.10."
  say rabbitmq "fetching Debian 13 with RabbitMQ 4.0 (400 MB, once)"
  rm -rf --one-file-system "$folder.part"
  timeout 900 debootstrap --variant=minbase --include=rabbitmq-server trixie "$folder.part" http://deb.debian.org/debian \
    >"$log" 2>&1 ||
    fail rabbitmq "debootstrap failed. Check the network, then run $me up again, or wipe and use --rabbit 3.10." "$log"
  mv "$folder.part" "$folder"
}

# The prefix of a command that runs in that folder. Its mounts are its own and go with it.
in_debian_13() {
  # shellcheck disable=SC2016 # the inner shell's variables
  prefix=(unshare --mount --propagation private bash -euc '
    folder=$1 state=$2
    shift 2
    mount -t proc proc "$folder/proc"
    mount --rbind /dev "$folder/dev"
    mkdir -p "$folder$state"
    mount --bind "$state" "$folder$state"
    exec chroot "$folder" "$@"' debian-13 "$home/debian-13" "$home/rabbitmq")
}

# Its data is made with the user of rabbitmq.conf, which counts at the first start only.
rabbitmq_settings() {
  printf '%s\n' 'log.console = true' 'log.console.level = warning' 'log.file = false'
  if [ "$security" = plain ]; then
    echo "listeners.tcp.1 = 127.0.0.1:$(port_of rabbitmq)"
    return 0
  fi
  # Beside the data: in Debian 13's folder there is nothing else of ours.
  (umask 077 && cp "$home/tls/ca.pem" "$home/tls/server.pem" "$home/tls/server.key" "$home/rabbitmq/")
  cat <<CONF
listeners.tcp = none
listeners.ssl.1 = 127.0.0.1:$(port_of rabbitmq)
ssl_options.cacertfile = $home/rabbitmq/ca.pem
ssl_options.certfile = $home/rabbitmq/server.pem
ssl_options.keyfile = $home/rabbitmq/server.key
ssl_options.verify = $([ "$security" = mutual ] && echo verify_peer || echo verify_none)
ssl_options.fail_if_no_peer_cert = $([ "$security" = mutual ] && echo true || echo false)
default_user = shakedown
default_pass = $(password)
CONF
}

start_rabbitmq() {
  local dir=$home/rabbitmq root="" prefix=() sbin port end
  if [ "$rabbit_version" = 4.0 ]; then
    root=$home/debian-13
    in_debian_13
  fi
  sbin=$(rabbitmq_sbin "$root") || fail rabbitmq "no server in $root/usr/lib/rabbitmq. Install Debian's package rabbitmq-server."
  sbin=${sbin#"$root"}
  port=$(port_of rabbitmq)
  mkdir -p "$dir"
  need_free rabbitmq
  need_free rabbitmq-distribution
  if ! pid_of epmd >/dev/null; then
    need_free epmd
    mkdir -p "$home/epmd"
    launch epmd "${prefix[@]}" epmd -port "$(port_of epmd)" -address 127.0.0.1
    end=$((SECONDS + 10))
    until port_open "$(port_of epmd)"; do
      [ $SECONDS -lt $end ] || fail rabbitmq "Erlang's port mapper does not answer on port $(port_of epmd)." "$(log_of epmd)"
      sleep 0.05
    done
  fi
  (umask 077 && rabbitmq_settings >"$dir/rabbitmq.conf")
  echo '[].' >"$dir/enabled_plugins"
  [ -e "$dir/.erlang.cookie" ] || (umask 077 && od -An -N16 -tx8 /dev/urandom | tr -d ' \n' >"$dir/.erlang.cookie")
  # RUNNING_UNDER_SYSTEMD makes the script become the server, so that the remembered pid is the server's.
  launch rabbitmq "${prefix[@]}" env RUNNING_UNDER_SYSTEMD=1 HOME="$dir" LANG=C.UTF-8 \
    RABBITMQ_NODENAME=shakedown@localhost RABBITMQ_MNESIA_BASE="$dir/data" RABBITMQ_LOG_BASE="$dir/log" \
    RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="$port" RABBITMQ_DIST_PORT="$(port_of rabbitmq-distribution)" \
    RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_CONFIG_FILE="$dir/rabbitmq.conf" RABBITMQ_ADVANCED_CONFIG_FILE="$dir/none.config" \
    RABBITMQ_ENABLED_PLUGINS_FILE="$dir/enabled_plugins" \
    ERL_EPMD_PORT="$(port_of epmd)" ERL_EPMD_ADDRESS=127.0.0.1 \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}' \
    "$sbin/rabbitmq-server"
}

# rabbitmqctl of the version that runs, with our cookie and port mapper.
run_rabbitmqctl() {
  local root="" prefix=() sbin dir=$home/rabbitmq
  if [ "$rabbit_version" = 4.0 ]; then
    root=$home/debian-13
    in_debian_13
  fi
  sbin=$(rabbitmq_sbin "$root") || fail rabbitmq "no server in $root/usr/lib/rabbitmq. Install Debian's package rabbitmq-server."
  "${prefix[@]}" env HOME="$dir" LANG=C.UTF-8 RABBITMQ_NODENAME=shakedown@localhost RABBITMQ_CONF_ENV_FILE=/dev/null \
    ERL_EPMD_PORT="$(port_of epmd)" "${sbin#"$root"}/rabbitmqctl" --quiet "$@"
}
