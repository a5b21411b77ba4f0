#!/usr/bin/env bash
# Uploads a mirror directory to the server. Hosts see the old release or the new one, never half of
# one: archives go first, then manifests, and pruned archives are removed last.
#   ./upload rsync web@releases.example.org:/srv/mirror
#   ./upload rclone REMOTE:BUCKET/PATH
# The mirror is the directory $MIRROR, or ./mirror if that is not set.
set -euo pipefail
cd "$(dirname "$0")"

if [ $# -ne 2 ]; then
  echo "usage: $0 rsync|rclone DESTINATION" >&2
  exit 2
fi
mirror=${MIRROR:-mirror}
destination=${2%/}

# The last step would empty the destination if the mirror had no releases.
for part in archives channels; do
  if [ ! -d "$mirror/$part" ]; then
    echo "expected a mirror with $part/ at $mirror" >&2
    exit 1
  fi
done

case $1 in
  rsync)
    rsync --recursive --times --chmod=D755,F644 --size-only --delay-updates \
      "$mirror/archives" "$destination/"
    rsync --recursive --times --chmod=D755,F644 --checksum --delay-updates \
      "$mirror/channels" "$destination/"
    rsync --recursive --times --chmod=D755,F644 --size-only --delete-after \
      "$mirror/archives" "$destination/"
    ;;
  rclone)
    # An archive is named by its hash, so it never changes and may be cached for ever.
    rclone copy --size-only --header-upload "Cache-Control: public, max-age=31536000, immutable" \
      "$mirror/archives" "$destination/archives"
    rclone copy --ignore-times --header-upload "Cache-Control: no-cache" \
      "$mirror/channels" "$destination/channels"
    rclone sync --size-only "$mirror/archives" "$destination/archives"
    ;;
  *)
    echo "expected rsync or rclone, found $1" >&2
    exit 2
    ;;
esac
