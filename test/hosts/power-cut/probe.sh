#!/bin/sh
# Says on the console, again and again, what the test wants to know of the host.
while :; do
  printf 'PROBE {"boot":"%s","current":"%s","booted":"%s","bootDefault":"%s","profile":"%s","failed":"%s","agent":"%s","roots":"%s","staging":"%s","state":"%s"}\n' \
    "$(cat /proc/sys/kernel/random/boot_id)" \
    "$(readlink /run/current-system)" \
    "$(readlink /run/booted-system)" \
    "$(cat /boot/loader/default)" \
    "$(readlink -f /nix/var/nix/profiles/system)" \
    "$(systemctl list-units --state=failed --plain --no-legend --full | awk '{ printf "%s ", $1 }')" \
    "$(systemctl is-active nixos-pull.service)" \
    "$(cd /nix/var/nix/gcroots/nixos-pull 2>/dev/null && for root in *; do printf '%s=%s ' "$root" "$(readlink "$root")"; done)" \
    "$(ls /var/lib/nixos-pull/staging 2>/dev/null | tr '\n' ' ')" \
    "$(base64 -w0 /var/lib/nixos-pull/state.json 2>/dev/null)" >/dev/ttyS0
  sleep 3
done
