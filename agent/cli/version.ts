/** Replaced by the build with package.json's version. */
declare const NIXOS_PULL_VERSION: string | undefined;

export const VERSION = typeof NIXOS_PULL_VERSION === "string" ? NIXOS_PULL_VERSION : "development";
