/** Replaced by the build: package.json's version, and the sources' time (ISO 8601). */
declare const NIXOS_PULL_VERSION: string | undefined;
declare const NIXOS_PULL_BUILD_TIME: string | undefined;

/** What this program knows about itself. */
export const BUILD = {
  version: typeof NIXOS_PULL_VERSION === "string" ? NIXOS_PULL_VERSION : "development",
  /** A host's clock cannot be before this; null if the build could not tell. */
  time:
    typeof NIXOS_PULL_BUILD_TIME === "string" && NIXOS_PULL_BUILD_TIME !== ""
      ? new Date(NIXOS_PULL_BUILD_TIME)
      : null,
} as const;
