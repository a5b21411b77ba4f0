#!/usr/bin/env bash
# Publishes every host from a clean checkout: ./publish KEY_FILE [further options of publish].
# The mirror is the directory $MIRROR, or ./mirror if that is not set.
#
# Exit code 0: the release is in force. 12: it is in force, but with --keep-going some hosts failed to
# build. Upload it in both cases. Any other: nothing new is to be uploaded.
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
if ! git rev-parse --verify --quiet HEAD >/dev/null; then
  echo "expected a Git repository with a commit; README.md says how to make it" >&2
  exit 1
fi
changes=$(git status --porcelain)
if [ -n "$changes" ]; then
  printf 'expected a clean checkout; commit these files first:\n%s\n' "$changes" >&2
  exit 1
fi
# What is signed below is committed at the end, which fails without a name.
if ! git var GIT_COMMITTER_IDENT >/dev/null 2>&1; then
  echo "Git does not know who you are: set user.name and user.email with git config, as README.md says" >&2
  exit 1
fi
trusted=()
for file in keys/*.public; do
  if [ ! -f "$file" ]; then
    echo "expected a public key in keys/; README.md says how to make it" >&2
    exit 1
  fi
  trusted+=(--public-key "$(cat "$file")")
done
unset NIX_PATH

# memory.json knows what was signed, also if the mirror forgets it. It belongs to the repository.
remember() {
  if [ -n "$(git status --porcelain memory.json)" ]; then
    git add memory.json
    git commit --quiet --message "Remember what was signed" -- memory.json
  fi
}
trap remember EXIT

status=0
nixos-pull publish --mirror "$mirror" --key "$key" --memory memory.json @hostsOption@ "$@" || status=$?
if [ "$status" -ne 0 ] && [ "$status" -ne 12 ]; then
  exit "$status"
fi

nixos-pull verify "$mirror" "${trusted[@]}"
if [ "$status" -ne 0 ]; then
  exit "$status"
fi
