import type { Release } from "../formats/manifest.ts";

/** The moments around an activation at which the operator's programs may run. */
export type HookName = "preActivate" | "postCommit" | "postRollback" | "preReboot" | "postBoot";

/** What a hook gets to know. */
export interface HookFacts {
  /** The release that is, was or failed to be activated; null if a person goes back by hand. */
  readonly release: Pick<Release, "channel" | "sequence" | "digest" | "mode" | "toplevel"> | null;
  /** The system that this host switches to, or has switched to. */
  readonly toplevel: string | null;
  /** The system before that; null if there was none. */
  readonly previous: string | null;
  /** How it went; empty before it is known. */
  readonly result:
    "" | "committed" | "reboot-needed" | "rolled-back" | "reverted" | "rebooting" | "booted";
  /** Why it went back, as a stable code. */
  readonly code?: string;
}

/** A hook's environment variables. All hooks get the same names; what does not apply is empty. */
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
