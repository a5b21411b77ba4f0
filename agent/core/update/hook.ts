import type { Release } from "../formats/manifest.ts";

/** The moments around an activation at which this host's own programs may run. */
export type HookName = "preActivate" | "postCommit" | "postRollback";

/** What a hook is told. */
export interface HookFacts {
  /** The release that is, was or failed to be activated; null where a person goes back by hand. */
  readonly release: Pick<Release, "channel" | "sequence" | "digest" | "mode" | "toplevel"> | null;
  /** The system that this host is to become, or has become. */
  readonly toplevel: string | null;
  /** The system that it was before; null where there was none. */
  readonly previous: string | null;
  /** How it went; empty before it is known. */
  readonly result: "" | "committed" | "reboot-needed" | "rolled-back" | "reverted";
  /** Why it went back, as a stable code. */
  readonly code?: string;
}

/** A hook's environment variables: the same names for each, empty where they do not apply. */
export function hookVariables(hook: HookName, facts: HookFacts): Record<string, string> {
  const { release, toplevel, previous, result, code } = facts;
  return {
    NIXOS_PULL_HOOK: hook,
    NIXOS_PULL_CHANNEL: release?.channel ?? "",
    NIXOS_PULL_RELEASE: release === null ? "" : String(release.sequence),
    NIXOS_PULL_DIGEST: release?.digest ?? "",
    NIXOS_PULL_MODE: release?.mode ?? "",
    NIXOS_PULL_TOPLEVEL: toplevel ?? "",
    NIXOS_PULL_PREVIOUS: previous ?? "",
    NIXOS_PULL_RESULT: result,
    NIXOS_PULL_CODE: code ?? "",
  };
}
