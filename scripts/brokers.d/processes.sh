# shellcheck shell=bash disable=SC2154 # sourced by scripts/brokers, whose variables it uses
# --- processes, remembered by pid and start time so that a reused pid is never ours ---

# Start time of a live process, in clock ticks since boot; nothing for a gone one or a zombie.
start_time() {
  local stat fields
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # The name may hold spaces: count fields after its closing bracket. State is the first, start time the 20th.
  read -ra fields <<<"${stat##*) }"
  case ${fields[0]} in Z | X) return 1 ;; esac
  echo "${fields[19]}"
}

remember() { echo "$2 $(start_time "$2")" >"$home/$1.pid"; }

# The pid that we remember for this name, if that very process still lives.
pid_of() {
  local pid started
  read -r pid started 2>/dev/null <"$home/$1.pid" || return 1
  [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] || return 1
  echo "$pid"
}

# stop NAME SIGNAL: asks, waits 20 s, then kills.
stop() {
  local pid
  if pid=$(pid_of "$1"); then
    kill "-$2" "$pid" 2>/dev/null || true
    for _ in $(seq 200); do
      pid_of "$1" >/dev/null || break
      sleep 0.1
    done
    if pid_of "$1" >/dev/null; then kill -KILL "$pid" 2>/dev/null || true; fi
    say "$1" "stopped"
  fi
  rm -f "$home/$1.pid"
}

# launch NAME COMMAND...: a session of its own, output to the log, the lock not inherited.
launch() {
  local name=$1 log
  shift
  log=$(log_of "$name")
  setsid "$@" >"$log" 2>&1 </dev/null 9>&- &
  remember "$name" $!
}

# answers PORT BYTES: the server replies to a client's first bytes of its own protocol.
answers() {
  local got
  if [ "$security" != plain ]; then
    got=$( { printf '%b' "$2"; sleep 1; } 2>/dev/null | timeout 2 openssl s_client -quiet -verify_quiet -verify_return_error \
      -CAfile "$home/tls/ca.pem" -cert "$home/tls/client.pem" -key "$home/tls/client.key" -connect "127.0.0.1:$1" 2>/dev/null | head -c 4 | wc -c) || true
    [ "$got" = 4 ]
    return
  fi
  got=$( { exec 3<>"/dev/tcp/127.0.0.1/$1" && printf '%b' "$2" >&3 && timeout 2 head -c 4 <&3; } 2>/dev/null | wc -c)
  [ "$got" = 4 ]
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# wait_ready NAME: until it answers; a dead process or 90 s without an answer is an error.
wait_ready() {
  local name=$1 end=$((SECONDS + 90))
  until ready "$name"; do
    pid_of "$name" >/dev/null || return 1
    [ $SECONDS -lt $end ] || return 1
    sleep 0.2
  done
}

# need_free NAME: nobody listens on its port. A server killed just now holds it for a moment.
need_free() {
  local port
  port=$(port_of "$1")
  for _ in $(seq 50); do
    port_open "$port" || return 0
    sleep 0.1
  done
  fail "$1" "port $port is taken by another program. \
Stop it, or set SHAKEDOWN_BROKERS_PORT_BASE to the first of ten free ports."
}
