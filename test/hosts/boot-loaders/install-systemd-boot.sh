#!/bin/sh
# What NixOS's installer for systemd-boot does with entries and kernels: every generation of
# the profile has an entry, and the system that is given is the default.
PATH=/usr/bin:/bin:/usr/sbin:/sbin
[ -z "@FAILS@" ] || exit 1
set -eu
default=$1
# Boot counting (26.11): an entry is named after its contents and begins with this many tries.
tries=@TRIES@
entries=/boot/loader/entries
mkdir -p $entries /boot/EFI/nixos

# replace FILE: its new contents are read, and are on the disk before the file is.
replace() {
  cat >"$1.tmp"
  sync "$1.tmp"
  mv "$1.tmp" "$1"
}

# name_of FILE: what a kernel or initrd of the store is called on the boot partition.
name_of() {
  path=$(readlink -f "$1")
  echo "/EFI/nixos/$(basename "$(dirname "$path")")-$(basename "$path").efi"
}

# Room is made before anything is copied.
kept=
generations=$(for link in /nix/var/nix/profiles/system-*-link; do
  number=${link%-link}
  echo "${number##*-}"
done | sort -n)
for number in $generations; do
  link=/nix/var/nix/profiles/system-$number-link
  kept="$kept $(name_of $link/kernel) $(name_of $link/initrd)"
done
for file in /boot/EFI/nixos/*; do
  case " $kept " in
    *" ${file#/boot} "*) ;;
    *) rm -f "$file" ;;
  esac
done

written=
chosen=
for number in $generations; do
  link=/nix/var/nix/profiles/system-$number-link
  toplevel=$(readlink -f $link)
  for file in kernel initrd; do
    name=$(name_of $link/$file)
    [ -e "/boot$name" ] || replace "/boot$name" <"$link/$file"
  done
  contents=$(
    echo "title NixOS"
    echo "version Generation $number NixOS $(cat $link/nixos-version)"
    echo "linux $(name_of $link/kernel)"
    echo "initrd $(name_of $link/initrd)"
    echo "options init=$toplevel/init $(cat $link/kernel-params)"
    echo "machine-id $(cat /etc/machine-id)"
    echo "sort-key nixos"
  )
  name=nixos-generation-$number
  file=$name.conf
  if [ "$tries" -gt 0 ]; then
    name=nixos-$(printf %s "$contents" | sha256sum | cut -d ' ' -f 1)
    # The loader counts in the name.
    file=$(cd $entries && for it in "$name"+*.conf "$name.conf"; do [ -e "$it" ] && echo "$it"; done | head -n 1)
    [ -n "$file" ] || file=$name+$tries.conf
  fi
  [ "$(cat "$entries/$file" 2>/dev/null)" = "$contents" ] || printf '%s\n' "$contents" | replace "$entries/$file"
  written="$written $file"
  [ "$toplevel" = "$default" ] && chosen=$name.conf
done
for file in "$entries"/nixos-*.conf; do
  case " $written " in
    *" ${file##*/} "*) ;;
    *) rm -f "$file" ;;
  esac
done
{
  echo "timeout 1"
  if [ "$tries" -gt 0 ]; then echo "preferred $chosen"; fi
  echo "default $chosen"
  echo "console-mode keep"
} | replace /boot/loader/loader.conf
sync -f /boot
