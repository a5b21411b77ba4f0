#!/bin/sh
# A stand-in for NixOS's switch-to-configuration-ng, for services and targets: the same
# actions, order of steps, output, lists of units and exit codes, and the same traps: exit
# code 4 overwrites 2, and 11 may be any EAGAIN. It takes what it needs from the same
# environment variables as the real one, so that either runs in the same test systems.
#
# Variables of its own: STAND_IN_ERA=24.11 has no checks, waits for its lock and for the end
# of the boot, as that release did. STAND_IN_DIES_AT=STAGE and STAND_IN_DIES_WITH=CODE end it
# in the middle, at `started`, `stopped`, `activated` or `restarted`.
set -u
PATH=/usr/bin:/bin:/usr/sbin:/sbin
toplevel=$TOPLEVEL
era=${STAND_IN_ERA:-26.11}
old=/etc/systemd/system
new=$toplevel/etc/systemd/system
run=/run/nixos

usage() {
  if [ "$era" = 24.11 ]; then
    echo "Usage: ${0##*/} [switch|boot|test|dry-activate]" >&2
  else
    echo "Usage: ${0##*/} [check|switch|boot|test|dry-activate]" >&2
    echo "check:        run pre-switch checks and exit" >&2
  fi
  cat >&2 <<END
switch:       make the configuration the boot default and activate now
boot:         make the configuration the boot default
test:         activate the configuration, but don't make it the boot default
dry-activate: show what would be done if this configuration were activated
END
  exit 1
}

case $era:${1-} in
  *:switch | *:boot | *:test | *:dry-activate | 26.11:check) action=$1 ;;
  *) usage ;;
esac
# The activation script, checks and boot loader see it.
export NIXOS_ACTION="$action"

mkdir -p $run
exec 9>>$run/switch-to-configuration.lock
if [ "$era" = 24.11 ]; then
  flock 9
elif ! flock --nonblock 9; then
  echo "Could not acquire lock" >&2
  exit 11 # errno: EAGAIN
fi
# Programs do not inherit the lock (9>&-): it goes with this process.

die_at() {
  [ "${STAND_IN_DIES_AT-}" = "$1" ] && [ $action != dry-activate ] || return 0
  case $STAND_IN_DIES_WITH in
    11) echo "Unable to list users with logind: Connection timed out" >&2 ;;
    101) echo "thread 'main' panicked at src/main.rs" >&2 ;;
    *) echo "Error: it died at $1" >&2 ;;
  esac
  exit "$STAND_IN_DIES_WITH"
}

if [ "$era" != 24.11 ]; then
  if [ "${NIXOS_NO_CHECK-}" != 1 ] && ! $PRE_SWITCH_CHECK "$toplevel" "$action" 9>&-; then
    echo "Pre-switch checks failed" >&2
    exit 1
  fi
  [ $action = check ] && exit 0
fi

case $action in
  switch | boot)
    if ! $INSTALL_BOOTLOADER "$toplevel" 9>&-; then
      echo "Failed to install bootloader" >&2
      # An errno that was left from before, which in 24.11 becomes the exit code.
      [ "$era" = 24.11 ] && exit 17
      exit 1
    fi
    ;;
esac
[ "${NIXOS_NO_SYNC-}" = 1 ] || sync -f /nix/store 9>&-
[ $action = boot ] && exit 0

if [ "$(cat /run/current-system/init-interface-version 2>/dev/null 9>&-)" != "$(cat "$toplevel/init-interface-version" 9>&-)" ]; then
  cat >&2 <<END
Warning: the new NixOS configuration has an ‘init’ that is
incompatible with the current configuration.  The new configuration
won't take effect until you reboot the system.

END
  exit 100
fi
if [ "$era" = 24.11 ]; then
  until systemctl is-system-running 9>&- | grep -Eqx 'running|degraded|maintenance' 9>&-; do
    sleep 0.2 9>&-
  done
fi
die_at started

# The whole text of a unit with its drop-ins, as lines SECTION.KEY=VALUE; fails at a line that
# is none of a unit file's, as an INI parser does.
settings() {
  cat "$1" "$1".d/*.conf 2>/dev/null 9>&- | awk '
    continued { continued = /\\$/; print section ".+" $0; next }
    /^[ \t]*([#;].*)?$/ { next }
    /^\[/ { section = substr($0, 2, index($0, "]") - 2); next }
    !/=/ { exit 1 }
    { continued = /\\$/ }
    section != "Install" { print section "." $0 }' 9>&-
}

# Whether a unit's switch (SECTION.KEY) is on; the third argument says what holds without it.
is_on() {
  value=$(settings "$1" | sed -n "s/^$2=//p" | tail -n 1)
  case ${value:-$3} in
    1 | yes | true | on) return 0 ;;
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
# which the next run goes on after this one was killed.
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

unparsable() {
  echo "Error: Failed to parse systemd unit file $1" >&2
  exit 1
}

compare_unit() {
  unit=$1
  old_file=$(unit_file $old "$unit")
  new_file=$(unit_file "$new" "$unit")
  [ -e "$old_file" ] || return 0
  # Only units that are loaded from the managed directory: no transient or generated ones.
  case $(systemctl show -P FragmentPath -- "$unit" 9>&-) in $old/*) ;; *) return 0 ;; esac
  if [ ! -e "$new_file" ] || [ "$(readlink -f "$new_file")" = /dev/null ]; then
    if is_on "$old_file" Unit.X-StopOnRemoval true; then stop="$stop $unit"; fi
  elif [ "${unit%.target}" != "$unit" ]; then
    if ! is_on "$new_file" Unit.RefuseManualStart false && ! is_on "$new_file" Unit.X-OnlyManualStart false; then
      add_start "$unit"
      hidden="$hidden $unit"
    fi
    if is_on "$new_file" Unit.X-StopOnReconfiguration false; then stop="$stop $unit"; fi
  else
    old_settings=$(settings "$old_file") || unparsable "$old_file"
    new_settings=$(settings "$new_file") || unparsable "$new_file"
    [ "$old_settings" = "$new_settings" ] && return 0
    reloadable='^(Unit\.X-Reload-Triggers|Service\.ExecReload)='
    if [ "$(printf %s "$old_settings" | grep -Ev "$reloadable")" = "$(printf %s "$new_settings" | grep -Ev "$reloadable")" ]; then
      if printf %s "$new_settings" | grep -Eq "$reloadable" && ! has "$restart" "$unit"; then add_reload "$unit"; fi
    else
      changed_unit "$unit" "$new_file"
    fi
  fi
}

units() { systemctl list-units --state="$1" --plain --no-legend --full --no-pager 9>&- | awk '{ print $1 }'; }
was_active=$(units active,activating,reloading,deactivating | tr '\n' ' ')
for unit in $(units active,activating); do
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
  [ ! -x "$OUT/dry-activate" ] || "$OUT/dry-activate" "$OUT" 9>&-
  say "would reload the following units" $reload
  say "would restart the following units" $restart
  say "would start the following units" $(shown $start)
  exit 0
fi

logger -t nixos -- "switching to system configuration $toplevel" 9>&-
if [ -n "$stop" ]; then
  say "stopping the following units" $(shown $stop)
  systemctl stop -- $stop 9>&-
fi
say "NOT restarting the following changed units" $skip
die_at stopped

exit_code=0
echo "activating the configuration..." >&2
if ! "$OUT/activate" "$OUT" 9>&-; then
  echo "Failed to run activate script" >&2
  exit_code=2
fi
die_at activated

systemctl reset-failed 9>&-
systemctl daemon-reload 9>&-

# A user's manager without a bus, such as that of somebody who lingers, cannot be reached.
if ! users=$(loginctl list-users --no-legend --no-pager 9>&-); then
  echo "Unable to list users with logind" >&2
  exit 11
fi
while read -r uid name _; do
  [ -n "$uid" ] || continue
  echo "reloading user units for $name..." >&2
  if [ ! -S "/run/user/$uid/bus" ]; then
    echo "Error: Failed to open dbus connection" >&2
    [ "$era" = 24.11 ] || { echo "warning: user activation for $name failed" >&2; exit_code=4; }
  fi
done <<END
$users
END

# job VERB UNITS: one job for each; what is under way is seen by `finished`.
failed_jobs=
job() {
  verb=$1
  shift
  for unit in $*; do
    if ! systemctl $verb --quiet -- "$unit" 2>/dev/null 9>&-; then
      failed_jobs="${failed_jobs}Failed to $verb $unit
"
      exit_code=4
    fi
  done
}

echo "restarting sysinit-reactivation.target" >&2
job restart sysinit-reactivation.target

for unit in $reload; do
  if ! systemctl --quiet is-active -- "$unit" 9>&-; then
    add_start "$unit"
    reload=$(for other in $reload; do [ "$other" = "$unit" ] || printf '%s ' "$other"; done)
  fi
done
say "reloading the following units" $reload
job reload $reload
rm -f $run/reload-list
say "restarting the following units" $restart
job restart $restart
rm -f $run/restart-list
die_at restarted
say "starting the following units" $(shown $start)
job start $start
rm -f $run/start-list
printf %s "$failed_jobs" >&2

# Units that fail at once are seen, others are not: the real one waits as long.
sleep 0.25 9>&-
failed=$(units failed)
for unit in $(systemctl list-units --state=activating --plain --no-legend --full --no-pager 9>&- | awk '$4 == "auto-restart" && $1 ~ /\.service$/ { print $1 }'); do
  [ "$(systemctl show -P ExecMainStatus -- "$unit" 9>&-)" = 0 ] || failed="$failed $unit"
done
say "the following new units were started" $(for unit in $(units active,activating); do
  case $unit in *.scope) continue ;; esac
  has "$was_active $failed" "$unit" || printf '%s ' "$unit"
done)
if [ -n "$failed" ]; then
  say "warning: the following units failed" $failed
  # The last thing that it prints, and much: old failures are in it too.
  systemctl status --no-pager --full -- $failed 9>&- >&2
  exit_code=4
fi
if [ $exit_code = 0 ]; then
  logger -t nixos -- "finished switching to system configuration $toplevel" 9>&-
else
  logger -t nixos -p user.err -- "switching to system configuration $toplevel failed (status $exit_code)" 9>&-
fi
exit $exit_code
