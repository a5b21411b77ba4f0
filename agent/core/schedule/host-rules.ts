import { confirms, type Confirmation } from "./confirmation.ts";
import { describeHold, isHeld, type HoldRead } from "./hold.ts";
import type { Release } from "../formats/manifest.ts";
import type { Settings } from "../settings.ts";
import type { Wait } from "./waiting.ts";
import { isOpen, nextOpening, spreadOf } from "./window.ts";

/** What operators told this host with `hold` and `confirm`, as it lies in the state directory. */
export interface OperatorCommands {
  readonly hold: HoldRead;
  /** The release that was confirmed last; null if none was. */
  readonly confirmation: Confirmation | null;
}

/** Why this host's own rules do not allow to activate a release now; empty if they do. Pure. */
export function hostWaits(
  settings: Pick<Settings, "hostname" | "maintenance" | "activation">,
  { hold, confirmation }: OperatorCommands,
  release: Release,
  now: Date,
): Wait[] {
  const waits: Wait[] = [];
  if (hold.kind !== "none" && isHeld(hold, now)) {
    waits.push({
      reason: "HELD",
      message: `this host is ${describeHold(hold)}; \`nixos-pull unhold\` ends that`,
      until: hold.kind === "held" ? hold.hold.until : null,
      binds: "everyone",
      // A held host is left alone, its link and its disk included.
      allowsFetch: false,
    });
  }
  const { windows, jitter } = settings.maintenance;
  const spread = spreadOf(settings.hostname, jitter);
  if (!isOpen(windows, now, spread)) {
    const until = nextOpening(windows, now, spread)?.toISOString() ?? null;
    waits.push({
      reason: "WINDOW_CLOSED",
      message: `the maintenance window opens at ${until ?? "no time"}`,
      until,
      binds: "service",
      allowsFetch: true,
    });
  }
  if (settings.activation.confirm === "required" && !confirms(confirmation, release)) {
    waits.push({
      reason: "CONFIRMATION_MISSING",
      message: `somebody has to run \`nixos-pull confirm ${release.sequence}\` on this host`,
      until: null,
      binds: "service",
      allowsFetch: true,
    });
  }
  return waits;
}
