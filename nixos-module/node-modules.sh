# Makes ./node_modules out of package.json and package-lock.json: what the bundle is made of
# and by. package.nix and scripts/node-modules-hashes.mjs both run it, with bash, and what it
# makes must be the same bytes everywhere, so nothing of a person's npm is read.
set -euo pipefail
export HOME="${TMPDIR:-/tmp}" npm_config_update_notifier=false
# nixpkgs' own name for a registry other than npm's default.
if [ -n "${NIX_NPM_REGISTRY-}" ]; then
  export npm_config_registry="$NIX_NPM_REGISTRY"
fi
npm ci --omit=dev --ignore-scripts --no-audit --no-fund
# npm's own note of where each package came from.
rm node_modules/.package-lock.json
# npm 10 leaves empty directories where it left packages out; npm 11 does not.
find node_modules -type d -empty -delete
