import type { Release } from "../formats/manifest.ts";
import { sanitize } from "../text/sanitize.ts";

/** A longer message is cut in a hook's environment. */
const MAX_MESSAGE = 2_000;

/** The moments at which the operator's programs may run. */
export type HookName =
  "preActivate" | "postCommit" | "postRollback" | "preReboot" | "postBoot" | "onFailure";

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
    | ""
    | "committed"
    | "reboot-needed"
    | "rolled-back"
    | "reverted"
    | "rebooting"
    | "booted"
    | "failed";
  /** Why it went back or failed, as a stable code. */
  readonly code?: string;
  /** What failed, in one line for people. */
  readonly message?: string;
}

/** A hook's environment variables. All hooks get the same names; what does not apply is empty. */
export function hookVariables(
  hook: HookName,
  hostname: string,
  facts: HookFacts,
): Record<string, string> {
  const { release, toplevel, previous, result, code, message } = facts;
  return {
    NIXOS_PULL_HOOK: hook,
    NIXOS_PULL_HOSTNAME: hostname,
    NIXOS_PULL_CHANNEL: release?.channel ?? "",
    NIXOS_PULL_RELEASE: release === null ? "" : String(release.sequence),
    NIXOS_PULL_DIGEST: release?.digest ?? "",
    NIXOS_PULL_MODE: release?.mode ?? "",
    NIXOS_PULL_TOPLEVEL: toplevel ?? "",
    NIXOS_PULL_PREVIOUS: previous ?? "",
    NIXOS_PULL_RESULT: result,
    NIXOS_PULL_CODE: code ?? "",
    NIXOS_PULL_MESSAGE: sanitize((message ?? "").replace(/\s+/g, " "), MAX_MESSAGE),
  };
}
