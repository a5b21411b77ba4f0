#!/usr/bin/env bash
# Publishes every host from a clean checkout: ./publish KEY_FILE [further options of publish].
# The mirror is the directory $MIRROR, or ./mirror if that is not set.
set -euo pipefail
cd "$(dirname "$0")"

if [ $# -lt 1 ]; then
  echo "usage: $0 KEY_FILE [OPTION…]" >&2
  exit 2
fi
key=$1
shift
mirror=${MIRROR:-mirror}

# Only a commit is published, so that every release can be built again.
changes=$(git status --porcelain)
if [ -n "$changes" ]; then
  printf 'expected a clean checkout; commit these files first:\n%s\n' "$changes" >&2
  exit 1
fi
unset NIX_PATH

# memory.json knows what was signed, also if the mirror forgets it. It belongs to the repository.
remember() {
  if [ -n "$(git status --porcelain memory.json)" ]; then
    git add memory.json
    git commit --quiet --message "Remember what was signed" -- memory.json
  fi
}
trap remember EXIT

# 12: the release is in force, but with --keep-going some hosts failed to build. It is verified all the
# same, and this script ends with 12, too.
status=0
nixos-pull publish --mirror "$mirror" --key "$key" --memory memory.json --hosts @hostsFile@ "$@" || status=$?
if [ "$status" -ne 0 ] && [ "$status" -ne 12 ]; then
  exit "$status"
fi

trusted=()
for file in keys/*.public; do
  trusted+=(--public-key "$(cat "$file")")
done
nixos-pull verify "$mirror" "${trusted[@]}"
if [ "$status" -ne 0 ]; then
  exit "$status"
fi
