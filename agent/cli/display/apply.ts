import { describeSpan, type Times } from "../../core/text/times.ts";
import { isTrial, type AgentRecord } from "../../core/update/record.ts";
import type { TickOutcome } from "../../host/poll/finding.ts";
import { describeActivation, describeFinding, releaseName } from "./finding.ts";
import { HostWords } from "./host-words.ts";
import { namesBoot } from "./reboot.ts";
import { styled, type Text } from "./screen.ts";

/** What an outcome is compared with. */
export interface ApplyContext {
  /** The record before; null if none could be read. */
  readonly before: AgentRecord | null;
  /** When the command began. */
  readonly begin: Date;
  readonly times: Times;
}

/** What `apply` came to, for people; nothing if an update failed, which is told as an error. */
export function describeApply(
  outcome: TickOutcome,
  { before, begin, times }: ApplyContext,
): Text[] {
  const { release, next, updated, error, decision, record } = outcome;
  const { committed, pendingReboot } = record;
  const words = new HostWords(times, [
    ...[release?.toplevel, committed?.toplevel, pendingReboot?.release.toplevel],
    ...[decision?.kind === "drifted" ? decision.found : null],
  ]);
  const calledOff = describeCalledOff(before, record);
  if (updated && release) {
    const took = describeSpan(times.now.getTime() - begin.getTime());
    return [
      ...calledOff,
      [
        styled("good", `Applied ${releaseName(release)}`),
        `: ${describeActivation(release, words)}, in ${took}`,
      ],
      ...(next ? [`${releaseName(next)} comes next: run \`nixos-pull apply\` again.`] : []),
      ...(pendingReboot && !pendingReboot.wayBack
        ? [styled("waiting", "REBOOT NEEDED: it takes full effect only with a boot.")]
        : []),
    ];
  }
  if (error && decision?.kind === "update") return calledOff;
  const boot = pendingReboot && isTrial(pendingReboot) ? [namesBoot(pendingReboot, words)] : [];
  return [...calledOff, ...describeFinding(outcome, words), ...boot];
}

/** That a boot was called off that was pending before. */
function describeCalledOff(before: AgentRecord | null, after: AgentRecord): Text[] {
  const boot = before?.pendingReboot ?? null;
  if (boot === null || boot.wayBack) return [];
  const { digest, sequence } = boot.release;
  const isPending = after.pendingReboot?.release.digest === digest;
  if (isPending || after.committed?.digest === digest) return [];
  const text = `The boot that release ${sequence} waited for was called off`;
  return [[styled("waiting", text), "; the boot default is what it was before it."]];
}
