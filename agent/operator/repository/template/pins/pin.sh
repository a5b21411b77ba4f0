#!/bin/sh
# Pins a source of nixos.nix: downloads the archive once, and writes its address and hash.
#   ./pin nixpkgs https://github.com/NixOS/nixpkgs/archive/COMMIT.tar.gz
set -eu

if [ $# -ne 2 ]; then
  echo "usage: $0 nixpkgs|nixos-pull URL" >&2
  exit 2
fi
case $1 in
  nixpkgs | nixos-pull) ;;
  *)
    echo "$0: expected nixpkgs or nixos-pull, found $1" >&2
    exit 2
    ;;
esac
case $2 in
  *[!A-Za-z0-9:/._~%?=\&+@,-]*)
    echo "$0: expected a URL, found $2" >&2
    exit 2
    ;;
esac

file=$(dirname "$0")/pins/$1.json
sha256=$(nix-prefetch-url --unpack "$2")
printf '{ "url": "%s", "sha256": "%s" }\n' "$2" "$sha256" >"$file.tmp"
mv "$file.tmp" "$file"
echo "pinned $1: $sha256"
