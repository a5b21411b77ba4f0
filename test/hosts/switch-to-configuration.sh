#!/bin/sh
# What NixOS's switch-to-configuration-ng does, in miniature: the same actions, exit
# codes, order of steps and treatment of units, for services and targets.
set -u
PATH=/usr/bin:/bin:/usr/sbin:/sbin
toplevel=@TOPLEVEL@
old=/etc/systemd/system
new=$toplevel/etc/systemd/system
run=/run/nixos

case ${1-} in
  check | switch | boot | test | dry-activate) action=$1 ;;
  *)
    cat >&2 <<EOF
Usage: ${0##*/} [check|switch|boot|test|dry-activate]
check:        run pre-switch checks and exit
switch:       make the configuration the boot default and activate now
boot:         make the configuration the boot default
test:         activate the configuration, but don't make it the boot default
dry-activate: show what would be done if this configuration were activated
EOF
    exit 1
    ;;
esac

mkdir -p $run
exec 9>>$run/switch-to-configuration.lock
if ! flock --nonblock 9; then
  echo "Could not acquire lock" >&2
  exit 11 # EAGAIN, as the real one's die() gives
fi

# Programs do not inherit the lock: it goes with this process.
sleep_at() {
  if [ "$1" = "@SLEEP_AT@" ] && [ "@SLEEP@" -gt 0 ] && [ $action != dry-activate ]; then
    echo "sleeping @SLEEP@ s ($1)" >&2
    sleep "@SLEEP@" 9>&-
  fi
}

if [ "${NIXOS_NO_CHECK-}" != 1 ] && [ -n "@CHECK_FAILS@" ]; then
  echo "Pre-switch checks failed" >&2
  exit 1
fi
[ $action = check ] && exit 0
sleep_at started

install_boot_loader() {
  [ -z "@BOOT_LOADER_FAILS@" ] || return 1
  mkdir -p /boot/loader &&
    printf '%s\n' "$toplevel" >/boot/loader/default.tmp &&
    sync /boot/loader/default.tmp &&
    mv /boot/loader/default.tmp /boot/loader/default &&
    sync /boot/loader
}

case $action in
  switch | boot)
    if ! install_boot_loader 9>&-; then
      echo "Failed to install bootloader" >&2
      exit 1
    fi
    ;;
esac
[ "${NIXOS_NO_SYNC-}" = 1 ] || sync -f /nix/store 9>&-
[ $action = boot ] && exit 0

if [ "$(cat /run/current-system/init-interface-version 2>/dev/null 9>&-)" != "$(cat "$toplevel/init-interface-version" 9>&-)" ]; then
  cat >&2 <<EOF
Warning: the new NixOS configuration has an ‘init’ that is
incompatible with the current configuration.  The new configuration
won't take effect until you reboot the system.

EOF
  exit 100
fi

# The whole text of a unit with its drop-ins, as lines SECTION.KEY=VALUE.
settings() {
  cat "$1" "$1".d/*.conf 2>/dev/null 9>&- | awk '
    /^[ \t]*([#;].*)?$/ { next }
    /^\[/ { section = substr($0, 2, index($0, "]") - 2); next }
    section != "Install" { print section "." $0 }' 9>&-
}

# Whether a unit's switch (SECTION.KEY) is on; the second argument says what holds without it.
is_on() {
  value=$(settings "$1" | sed -n "s/^$2=//p" | tail -n 1)
  case ${value:-$3} in
    1 | yes | true | on | Yes | True) return 0 ;;
    *) return 1 ;;
  esac
}

# The file of a unit in a directory: its own, or its template's.
unit_file() {
  if [ ! -e "$1/$2" ] && [ "${2%@*}" != "$2" ]; then
    printf '%s' "$1/${2%@*}@.${2##*.}"
  else
    printf '%s' "$1/$2"
  fi
}

# Lists of units live in memory; those of what is still to be started also in files, from
# which the next run goes on where this one was killed.
stop= skip= hidden=
start=$(cat $run/start-list 2>/dev/null | tr '\n' ' ')
restart=$(cat $run/restart-list 2>/dev/null | tr '\n' ' ')
reload=$(cat $run/reload-list 2>/dev/null | tr '\n' ' ')
has() { case " $1 " in *" $2 "*) return 0 ;; *) return 1 ;; esac }
record() { [ $action = dry-activate ] || printf '%s\n' "$2" >>"$run/$1-list"; }
add_start() { has "$start" "$1" || { start="$start $1"; record start "$1"; }; }
add_restart() { has "$restart" "$1" || { restart="$restart $1"; record restart "$1"; }; }
add_reload() { has "$reload" "$1" || { reload="$reload $1"; record reload "$1"; }; }
names() { printf '%s\n' $* | sort | paste -sd, | sed 's/,/, /g'; }

changed_unit() {
  unit=$1 file=$2
  case $unit in
    sysinit.target | basic.target | multi-user.target | graphical.target | *.path | *.slice) return ;;
  esac
  if is_on "$file" Service.X-ReloadIfChanged false && ! has "$restart $stop" "$unit"; then
    add_reload "$unit"
  elif ! is_on "$file" Service.X-RestartIfChanged true ||
    is_on "$file" Unit.RefuseManualStop false || is_on "$file" Unit.X-OnlyManualStart false; then
    skip="$skip $unit"
  elif ! is_on "$file" Service.X-StopIfChanged true || [ "${unit%.service}" = "$unit" ]; then
    add_restart "$unit"
  else
    stop="$stop $unit"
    add_start "$unit"
  fi
}

compare_unit() {
  unit=$1
  old_file=$(unit_file $old "$unit")
  new_file=$(unit_file "$new" "$unit")
  [ -e "$old_file" ] || return
  # Only units that are loaded from the managed directory: no transient or generated ones.
  case $(systemctl show -P FragmentPath -- "$unit" 9>&-) in $old/*) ;; *) return ;; esac
  if [ ! -e "$new_file" ] || [ "$(readlink -f "$new_file")" = /dev/null ]; then
    if is_on "$old_file" Unit.X-StopOnRemoval true; then stop="$stop $unit"; fi
  elif [ "${unit%.target}" != "$unit" ]; then
    if ! is_on "$new_file" Unit.RefuseManualStart false && ! is_on "$new_file" Unit.X-OnlyManualStart false; then
      add_start "$unit"
      hidden="$hidden $unit"
    fi
    if is_on "$new_file" Unit.X-StopOnReconfiguration false; then stop="$stop $unit"; fi
  else
    old_settings=$(settings "$old_file")
    new_settings=$(settings "$new_file")
    [ "$old_settings" = "$new_settings" ] && return
    reloadable='^(Unit\.X-Reload-Triggers|Service\.ExecReload)='
    if [ "$(printf %s "$old_settings" | grep -Ev "$reloadable")" = "$(printf %s "$new_settings" | grep -Ev "$reloadable")" ]; then
      if printf %s "$new_settings" | grep -Eq "$reloadable" && ! has "$restart" "$unit"; then add_reload "$unit"; fi
    else
      changed_unit "$unit" "$new_file"
    fi
  fi
}

for unit in $(systemctl list-units --state=active,activating --plain --no-legend --full --no-pager 9>&- | awk '{ print $1 }'); do
  compare_unit "$unit"
done

shown() { for unit in $*; do has "$hidden" "$unit" || printf '%s ' "$unit"; done; }
# say MESSAGE UNITS
say() {
  message=$1
  shift
  [ -z "$*" ] || echo "$message: $(names $*)" >&2
}

if [ $action = dry-activate ]; then
  say "would stop the following units" $(shown $stop)
  say "would NOT stop the following changed units" $skip
  echo "would activate the configuration..." >&2
  say "would reload the following units" $reload
  say "would restart the following units" $restart
  say "would start the following units" $(shown $start)
  exit 0
fi

logger -t nixos -- "switching to system configuration $toplevel" 9>&-
exit_code=0
if [ -n "$stop" ]; then
  say "stopping the following units" $(shown $stop)
  systemctl stop -- $stop 9>&-
fi
say "NOT restarting the following changed units" $skip
sleep_at stopped

echo "activating the configuration..." >&2
if ! "$toplevel/activate" "$toplevel" 9>&-; then
  echo "Failed to run activate script" >&2
  exit_code=2
fi
sleep_at activated

systemctl reset-failed 9>&-
systemctl daemon-reload 9>&-

for unit in $reload; do
  if ! systemctl --quiet is-active -- "$unit" 9>&-; then
    add_start "$unit"
    reload=$(for other in $reload; do [ "$other" = "$unit" ] || printf '%s ' "$other"; done)
  fi
done
if [ -n "$reload" ]; then
  say "reloading the following units" $reload
  systemctl reload -- $reload 9>&- || exit_code=4
fi
rm -f $run/reload-list
if [ -n "$restart" ]; then
  say "restarting the following units" $restart
  systemctl restart -- $restart 9>&- || exit_code=4
fi
rm -f $run/restart-list
if [ -n "$start" ]; then
  say "starting the following units" $(shown $start)
  systemctl start -- $start 9>&- || exit_code=4
fi
rm -f $run/start-list

# Units that fail at once are seen, others are not: the real one waits as long.
sleep 0.25 9>&-
failed=$(systemctl list-units --state=failed --plain --no-legend --full --no-pager 9>&- | awk '{ print $1 }')
for unit in $(systemctl list-units --state=activating --plain --no-legend --full --no-pager 9>&- | awk '$4 == "auto-restart" && $1 ~ /\.service$/ { print $1 }'); do
  [ "$(systemctl show -P ExecMainStatus -- "$unit" 9>&-)" = 0 ] || failed="$failed $unit"
done
if [ -n "$failed" ]; then
  say "warning: the following units failed" $failed
  systemctl status --no-pager --full -- $failed 9>&- >&2
  exit_code=4
fi
if [ $exit_code = 0 ]; then
  logger -t nixos -- "finished switching to system configuration $toplevel" 9>&-
else
  logger -t nixos -p user.err -- "switching to system configuration $toplevel failed (status $exit_code)" 9>&-
fi
exit $exit_code
