/** A block of commands that no test runs: its document, its first line, and why it is not run. */
export interface BlockNotRun {
  readonly document: string;
  readonly first: string;
  readonly reason: string;
}

/**
 * Every block of commands in the documents is run by `documents.test.ts`, or stands here. A block
 * that stands here and is gone from its document fails the test.
 */
export const BLOCKS_NOT_RUN: readonly BlockNotRun[] = [
  {
    document: "README.md",
    first: "./scripts/demo",
    reason: "it installs packages on the machine that runs it",
  },
  {
    document: "README.md",
    first: "./scripts/test",
    reason: "it runs this very test",
  },
  {
    document: "manual pages",
    first: "nixos-pull run",
    reason: "it runs until it is stopped",
  },
  {
    document: "agent/docs/get-started.md",
    first: "nix run path:. -- publish --help",
    reason: "needs nixpkgs; test/nixos-module/package.test.ts evaluates it with a stand-in",
  },
  {
    document: "agent/docs/get-started.md",
    first: "npm ci",
    reason: "needs npm's registry, and would replace the packages of this checkout",
  },
  {
    document: "nixos-module/README.md",
    first: "nix-build -E '(import <nixpkgs> { }).callPackage ./nixos-module/package.nix { }'",
    reason: "needs nixpkgs; test/nixos-module/package.test.ts builds the package with a stand-in",
  },
  {
    document: "nixos-module/README.md",
    first: "nix-build nixos-module/tests              # all",
    reason: "needs nixpkgs and KVM",
  },
  {
    document: "agent/docs/publishing.md",
    first: 'nixos-pull mirror mirror "s3://bucket/fleet?region=eu-central-1" --public-key KEY',
    reason: "needs an account for S3; test/integration/bucket.test.ts runs it with another server",
  },
  {
    document: "agent/docs/publishing.md",
    first: "aws s3 sync mirror/archives s3://bucket/archives --size-only \\",
    reason: "needs an account for S3",
  },
  {
    document: "agent/docs/publishing.md",
    first: `nix-instantiate --eval --strict --json -E '(builtins.fromJSON (builtins.readFile /etc/nixos-pull/config.json)) // { hostname = "web2"; }' > /run/as-web2.json`,
    reason: "needs a NixOS host with systemd",
  },
  {
    document: "agent/docs/troubleshooting.md",
    first: "systemctl status nixos-pull",
    reason: "needs a NixOS host with systemd",
  },
];
