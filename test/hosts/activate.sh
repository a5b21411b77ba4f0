#!/bin/sh
# The activation script of a test system: points /etc at this system's files and the
# network interface at its address, and goes on after a failure, as NixOS's does.
PATH=/usr/bin:/bin:/usr/sbin:/sbin
toplevel=@TOPLEVEL@
status=0

# A switch that takes its time: not at boot, where no action is set.
sleep_at() {
  if [ "$1" = "@SLEEP_AT@" ] && [ "@SLEEP@" -gt 0 ] && [ -n "${NIXOS_ACTION-}" ]; then
    echo "sleeping @SLEEP@ s ($1)" >&2
    sleep "@SLEEP@"
  fi
}

# snippet NAME COMMAND…: goes on after a failure, and says so as NixOS's script does.
snippet() {
  name=$1
  shift
  "$@"
  code=$?
  [ $code = 0 ] && return
  echo "Activation script snippet '$name' failed ($code)"
  status=1
}

sleep_at stopped

# Replaces a link in one step.
link() {
  [ "$(readlink "$2")" = "$1" ] && return
  ln -s "$1" "$2.tmp.$$" && mv -T "$2.tmp.$$" "$2"
}

link "$toplevel/etc" /etc/static
for entry in systemd/system nixos-pull; do
  if [ -e "/etc/static/$entry" ]; then
    link "/etc/static/$entry" "/etc/$entry"
  elif [ -L "/etc/$entry" ]; then
    rm "/etc/$entry"
  fi
done

# A host with a network of its own has its address here.
if [ -e /etc/host-address ] && ip link show host0 >/dev/null 2>&1; then
  if [ -n "@CUT_NETWORK@" ]; then
    echo "taking the network down"
    ip link set host0 down
  else
    ip address replace "$(cat /etc/host-address)" dev host0
    ip link set host0 up
  fi
fi

if [ -n "@FAILS@" ]; then snippet failing false; fi

mkdir -p /nix/var/nix/gcroots
link /run/current-system /nix/var/nix/gcroots/current-system
link /run/booted-system /nix/var/nix/gcroots/booted-system
link "$toplevel" /run/current-system
