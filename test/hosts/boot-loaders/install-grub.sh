#!/bin/sh
# What NixOS's installer for GRUB does with its menu and kernels: the first entry is the
# system that is given, a submenu has every generation of the profile.
PATH=/usr/bin:/bin:/usr/sbin:/sbin
[ -z "@FAILS@" ] || exit 1
set -eu
default=$1
mkdir -p /boot/grub /boot/kernels

# replace FILE: its new contents are read, and are on the disk before the file is.
replace() {
  cat >"$1.tmp"
  sync "$1.tmp"
  mv "$1.tmp" "$1"
}

# name_of FILE: what a kernel or initrd of the store is called on the boot partition.
name_of() {
  path=$(readlink -f "$1")
  echo "/kernels/$(basename "$(dirname "$path")")-$(basename "$path")"
}

# entry TITLE TOPLEVEL
entry() {
  for file in kernel initrd; do
    name=$(name_of "$2/$file")
    [ -e "/boot$name" ] || replace "/boot$name" <"$2/$file"
    echo "$name" >>/run/nixos-pull-kept-kernels
  done
  cat <<END
menuentry "$1" --class nixos --unrestricted {
  search --set=drive1 --fs-uuid $(cat /boot/uuid)
  linux (\$drive1)$(name_of "$2/kernel") init=$2/init $(cat "$2/kernel-params")
  initrd (\$drive1)$(name_of "$2/initrd")
}
END
}

: >/run/nixos-pull-kept-kernels
{
  # shellcheck disable=SC2016 # for GRUB
  echo 'serial --unit=0
terminal_input serial
terminal_output serial
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ]; then
  set default="${next_entry}"
  set next_entry=
  save_env next_entry
  set timeout=1
  set boot_once=true
else
  set default=0
  set timeout=1
fi
function savedefault {
    if [ -z "${boot_once}"]; then
    saved_entry="${chosen}"
    save_env saved_entry
    fi
}'
  entry NixOS "$default"
  echo 'submenu "NixOS - All configurations" --class submenu {'
  for link in /nix/var/nix/profiles/system-*-link; do
    number=${link%-link}
    echo "${number##*-}"
  done | sort -rn | while read -r number; do
    link=/nix/var/nix/profiles/system-$number-link
    entry "NixOS - Configuration $number ($(date -r "$link" +%F) - $(cat "$link/nixos-version"))" "$(readlink -f "$link")"
  done
  echo '}'
} | replace /boot/grub/grub.cfg
for file in /boot/kernels/*; do
  grep -qxF "${file#/boot}" /run/nixos-pull-kept-kernels || rm -f "$file"
done
rm -f /run/nixos-pull-kept-kernels
sync -f /boot
