#!/bin/sh
# The pre-switch checks of a test system, as NixOS makes them of `system.preSwitchChecks`:
# run with TOPLEVEL and ACTION, for every action.
PATH=/usr/bin:/bin:/usr/sbin:/sbin
incoming=$1 action=$2

failed() {
  echo "Pre-switch check '$1' failed"
  exit 1
}

# The switch inhibitors as lines NAME=VALUE; the file is JSON without spaces.
inhibitors() { { tr -d '{}"' <"$1/switch-inhibitors" && echo; } | tr ',' '\n' | sed 's/:/=/'; }

# One that both systems have, and that differs, is better taken by a boot. Not asked for `boot`
# and `dry-activate`.
case $action in
  boot | dry-activate) echo "Not checking switch inhibitors (action = $action)" ;;
  *)
    printf 'Checking switch inhibitors...'
    changes=$(
      inhibitors "$incoming" | while IFS='=' read -r name value; do
        before=$(inhibitors /run/current-system | sed -n "s/^$name=//p")
        [ -z "$before" ] || [ "$before" = "$value" ] || echo "$name : $before -> $value"
      done
    )
    if [ -n "$changes" ]; then
      printf '\nThere are changes to critical components of the system:\n\n%s\n\n' "$changes"
      echo "Switching into this system is not recommended."
      echo "You probably want to run 'nixos-rebuild boot' and reboot your system instead."
      failed switchInhibitors
    fi
    echo " done"
    ;;
esac

if [ -n "@CHECK_FAILS@" ] || [ -e /var/tmp/check-fails-"@GENERATION@" ]; then failed failing; fi

if [ "@SLEEP_AT@" = started ] && [ "$action" != check ] && [ "$action" != dry-activate ]; then
  echo "sleeping @SLEEP@ s (started)" >&2
  sleep "@SLEEP@"
fi
exit 0
