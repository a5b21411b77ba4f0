#!/bin/sh
# Pins a source of nixos.nix: downloads the archive once, and writes its address and hash. If the address
# leads to another one, as a channel's does to its newest release, the other one is pinned.
#   ./pin nixpkgs https://channels.nixos.org/nixos-26.05/nixexprs.tar.xz
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

url=$2
case $url in
  http://* | https://*)
    # What one downloads tomorrow from an address that leads elsewhere has another hash.
    if command -v curl >/dev/null; then
      url=$(curl --fail --silent --show-error --location --head --output /dev/null \
        --write-out '%{url_effective}' "$url")
    else
      echo "$0: there is no curl: if $url is the address of a branch or channel, its hash will change" >&2
    fi
    ;;
esac
case $url in
  *[!A-Za-z0-9:/._~%?=\&+@,-]*)
    echo "$0: expected a URL, found $url" >&2
    exit 2
    ;;
esac

file=$(dirname "$0")/pins/$1.json
sha256=$(nix-prefetch-url --unpack "$url")
printf '{ "url": "%s", "sha256": "%s" }\n' "$url" "$sha256" >"$file.tmp"
mv "$file.tmp" "$file"
echo "pinned $1 at $url: $sha256"
