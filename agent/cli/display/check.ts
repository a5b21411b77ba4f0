import type { CheckOutcome } from "../../host/check.ts";
import type { FetchPreview } from "../../core/ports.ts";
import type { Release } from "../../core/formats/manifest.ts";
import { describeHold } from "../../core/schedule/hold.ts";
import type { Settings } from "../../core/settings.ts";
import { counted, formatBytes } from "../../core/text/quantity.ts";
import { sanitize } from "../../core/text/sanitize.ts";
import type { Times } from "../../core/text/times.ts";
import { describeDrift } from "../../core/update/drift.ts";
import { isTrial } from "../../core/update/record.ts";
import { describePackages } from "./difference.ts";
import { describeFinding, describeVerdict } from "./finding.ts";
import { describeStep } from "./headline.ts";
import { HostWords } from "./host-words.ts";
import { describeReboot, namesBoot } from "./reboot.ts";
import { styled, type Text } from "./screen.ts";

/** What `check` says to people. */
export interface CheckWords {
  /** What a person should look at; said first, on standard error. */
  readonly alarms: readonly Text[];
  /** What would happen; on standard output. */
  readonly result: readonly Text[];
  /** What else was seen; on standard error. */
  readonly beside: readonly Text[];
}

/** A check for people. A message that stands twice in it is said once. */
export function describeCheck(
  found: CheckOutcome,
  times: Times,
  policy: Settings["reboot"]["policy"],
): CheckWords {
  const words = new HostWords(times, systemsOf(found));
  const alarms = found.alarms.map((it) => styled("bad", `ALARM: ${words.reason(it)}`));
  const result = [
    ...describeFinding(found, words),
    ...describePending(found, policy, words),
    ...describePreview(found, words),
  ];
  return { alarms, result, beside: describeBeside(found, words) };
}

function systemsOf({
  release,
  record,
  drift,
  decision,
}: CheckOutcome): (string | null | undefined)[] {
  const { committed, pendingReboot, denied } = record;
  return [
    ...[release?.toplevel, committed?.toplevel, pendingReboot?.release.toplevel],
    ...[drift?.expected, drift?.found, decision?.kind === "drifted" ? decision.found : null],
    ...denied.map(({ toplevel }) => toplevel),
  ];
}

/** The boot that is pending: whom it waits for, or that it would be called off. */
function describePending(
  { record: { pendingReboot }, calledOff }: CheckOutcome,
  policy: Settings["reboot"]["policy"],
  words: HostWords,
): Text[] {
  if (!pendingReboot) return [];
  const { sequence } = pendingReboot.release;
  if (calledOff !== null) {
    const text = `The boot for release ${sequence} would be called off first`;
    return [[styled("waiting", text), `: ${words.message(calledOff)}.`]];
  }
  const reboot = words.message(describeReboot(pendingReboot, policy));
  return [
    ...(isTrial(pendingReboot) ? [namesBoot(pendingReboot, words)] : []),
    [styled("waiting", "REBOOT NEEDED"), `: ${reboot}.`],
  ];
}

/** What the update would bring, or why it would fail. */
function describePreview(
  { preview, error, decision, release }: CheckOutcome,
  words: HostWords,
): Text[] {
  if (decision?.kind !== "update") return [];
  const failing = error
    ? [[styled("bad", preview ? "Beside that" : "It would fail now"), `: ${words.reason(error)}`]]
    : [];
  if (!preview) return failing;
  const collects = preview.collectsGarbage
    ? [
        "The store has no room: garbage would be collected first (generations.collect), as much as is " +
          "missing. If there is less, the update ends with DISK_FULL.",
      ]
    : [];
  return [
    ...failing,
    `Would download ${preview.newPaths} of ${counted(preview.paths, "path")}: ` +
      `${formatBytes(preview.downloadBytes)}, ${formatBytes(preview.storeBytes)} in the store.`,
    ...collects,
    ...packageLines(preview).map((line) => `  ${line}`),
    ...describeCommands(release),
  ];
}

/** The packages that an update changes, in lines. */
function packageLines({ packages }: FetchPreview): string[] {
  return packages === null
    ? ["packages: unknown, since the closure of the running system is not known"]
    : describePackages(packages);
}

/** The commands of the release that this host would run as root. */
function describeCommands(release: Release | null): string[] {
  return (release?.checks ?? []).flatMap((check) =>
    check.kind === "command"
      ? [sanitize(`It would run as root: ${check.name}: ${JSON.stringify(check.command)}`, 300_000)]
      : [],
  );
}

/** What else was seen: mirrors, what is under way, holds, drift, a boot loader that cannot try. */
function describeBeside(found: CheckOutcome, words: HostWords): Text[] {
  const { verdicts, hold, drift, bootLoader, decision, record } = found;
  const isHeldSaid =
    decision?.kind === "waiting" && decision.waits.some(({ reason }) => reason === "HELD");
  const mayBoot =
    decision?.kind === "update" || decision?.kind === "waiting" || record.pendingReboot !== null;
  const mirrors = verdicts.map((verdict): Text => {
    const { mirror, code, message = "" } = verdict;
    const has = code === undefined ? describeVerdict(verdict) : words.reason({ code, message });
    return [styled("dim", `${mirror}: `), has];
  });
  return [
    ...mirrors,
    ...describeState(found, words),
    ...(hold.kind === "none" || isHeldSaid
      ? []
      : [`This host is ${words.message(describeHold(hold))}.`]),
    ...(drift ? [`This host was changed by hand: ${words.message(describeDrift(drift))}.`] : []),
    ...(bootLoader.cannotTry === null || !mayBoot
      ? []
      : [`A release that needs a boot cannot be tried by one boot: ${bootLoader.cannotTry}.`]),
  ];
}

/**
 * The update that is under way or was left in the middle, or the attempt that failed; the decision may
 * say that one itself.
 */
function describeState({ record, decision, activity }: CheckOutcome, words: HostWords): Text[] {
  const { state } = record;
  if (state.name === "Idle") return [];
  if (state.name === "Failed") {
    if (decision?.kind === "backoff") return [];
    const { release, reason } = state;
    const what = `The last attempt, at release ${release.sequence}, failed`;
    return [[styled("bad", what), `: ${words.reason(reason)}`]];
  }
  const step = `${state.name}: ${describeStep(state)}`;
  const since = activity.since === null ? "" : `, since ${words.times.ago(activity.since)}`;
  if (activity.update !== null) {
    return [[styled("busy", "An update is under way"), `, in ${step}${since}.`]];
  }
  if (decision?.kind === "waiting" && state.name === "Imported") return ["It is downloaded."];
  const next =
    activity.service === null
      ? "No agent runs: the service, or `nixos-pull apply`, goes on with it."
      : "The service goes on with it at its next poll.";
  return [[styled("bad", "An update was left in the middle"), `, in ${step}${since}. ${next}`]];
}
