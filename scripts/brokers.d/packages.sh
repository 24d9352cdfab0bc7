# shellcheck shell=bash disable=SC2154 # sourced by scripts/brokers, whose variables it uses
# --- packages ---

install_packages() {
  local missing=() log=$home/install.log policy=/usr/sbin/policy-rc.d
  command -v java >/dev/null || missing+=(openjdk-17-jre-headless)
  command -v mvn >/dev/null || [ -e "$home/kafka/jars-$KAFKA_VERSION" ] || missing+=(maven)
  if [ "$rabbit_version" = 4.0 ]; then
    [ -e "$home/debian-13" ] || command -v debootstrap >/dev/null || missing+=(debootstrap)
  else
    [ -n "$(rabbitmq_sbin)" ] || missing+=(rabbitmq-server)
  fi
  [ -n "$(postgres_bin)" ] || missing+=(postgresql)
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || fail install "no apt-get here. Install ${missing[*]} by hand, then run $me up again."
  [ "$(id -u)" = 0 ] || fail install "run as root, or once: sudo apt-get install ${missing[*]}"
  say install "${missing[*]}"
  # The packages start system-wide servers of their own when installed; a policy of "never" prevents that.
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    # shellcheck disable=SC2064 # the path of now
    trap "rm -f $policy" EXIT
  fi
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
    >"$log" 2>&1 || fail install "apt-get failed. Check the network and the package sources, then run $me up again." "$log"
  if [ "$(trap -p EXIT)" ]; then
    rm -f "$policy"
    trap - EXIT
  fi
}
