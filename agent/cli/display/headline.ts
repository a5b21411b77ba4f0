import { EXIT, ERROR_KINDS, isErrorCode } from "../../core/errors.ts";
import type { HostStatus } from "../../host/report/host-status.ts";
import { counted } from "../../core/text/quantity.ts";
import { describePosition } from "../../core/formats/manifest.ts";
import { describeDrift } from "../../core/update/drift.ts";
import { describeHold } from "../../core/schedule/hold.ts";
import { isTrial, type AgentRecord } from "../../core/update/record.ts";
import { isPastTheLine, type State, type StateOf } from "../../core/update/states.ts";
import { describeWait, releaseName } from "./finding.ts";
import type { HostWords } from "./host-words.ts";
import { describeProgress } from "./progress.ts";
import { namesBoot, whoReboots } from "./reboot.ts";
import type { Style } from "./screen.ts";

/** What matters most about a host, in words. */
export interface Headline {
  readonly style: Style;
  readonly text: string;
  /** What follows from it, and when: sentences. */
  readonly more: readonly string[];
  /** What it says already. */
  readonly tells?: "waits" | "hold" | "drift" | "reboot" | "denial" | "stopped" | undefined;
}

/** The state of an update that is under way: every one but Idle and Failed. */
export type BusyState = Exclude<State, StateOf<"Idle"> | StateOf<"Failed">>;

/** What matters most, in the order in which a person should know it. */
export function headlineOf(status: HostStatus, words: HostWords): Headline {
  const { state } = status.record;
  if (state.name === "Failed") return failed(state, status, words);
  if (state.name !== "Idle") {
    // It may be fetched ahead of what it waits for.
    const waits = isPastTheLine(state) || status.activity.fetched ? null : waiting(status, words);
    return waits ?? busy(state, status, words);
  }
  return (
    undone(status, words) ??
    needingReboot(status, words) ??
    changedByHand(status, words) ??
    waiting(status, words) ??
    notPolled(status, words) ??
    settled(status, words)
  );
}

/** What an update does in a state, for people. */
export function describeStep(state: BusyState): string {
  switch (state.name) {
    case "Candidate":
      return "about to download";
    case "Fetching":
      return "downloading";
    case "Imported":
      return "downloaded, about to be activated";
    case "Staged":
      return "preparing the activation";
    case "Activating":
      return "activating";
    case "Verifying":
      return "checking whether it is healthy";
    case "Committing":
      return "making it the boot default";
    case "Armed":
      return "arranging the boot that tries it";
    case "Committed":
      return "done, cleaning up";
    case "RollingBack":
      return "going back to the system from before";
    case "RolledBack":
      return "back at the system from before, cleaning up";
    case "Reverting":
      return "going back by hand";
    default:
      return state satisfies never;
  }
}

/** An update that is under way, or that an agent left in the middle. */
function busy(state: BusyState, status: HostStatus, words: HostWords): Headline {
  const { hostname, channel, activity } = status;
  const { update, service, since, fetched } = activity;
  const to =
    state.name === "Reverting"
      ? `generation ${state.target.generation ?? "?"}, ${words.system(state.target.toplevel)}`
      : `release ${state.release.sequence} of ${channel}`;
  const isBack = state.name === "RollingBack" || state.name === "RolledBack";
  const why = [
    ...(isBack ? [`It failed: ${words.reason(state.reason)}`] : []),
    ...(state.name === "Reverting" && state.failures > 0
      ? [`It failed ${counted(state.failures, "time")}.`]
      : []),
  ];
  if (update === null) {
    const what = `${hostname} was left in the middle of ${state.name === "Reverting" ? "a way back to " : ""}${to}: ${describeStep(state)}`;
    const next =
      service === null
        ? "`nixos-pull apply` or the service goes on with it."
        : "The service goes on with it at its next poll.";
    const style = isPastTheLine(state) && service === null ? "bad" : "waiting";
    const when = since === null ? "" : `, since ${words.times.ago(since)}`;
    return { style, text: `${what}${when}`, more: [...why, next], tells: "stopped" };
  }
  const began = since === null ? [] : [`This step began ${words.times.ago(since)}.`];
  if (state.name === "Reverting") {
    const text = `${hostname} goes back to ${to}, as a person asked`;
    return { style: "busy", text, more: [...why, ...began] };
  }
  if (isBack) {
    const text = `${hostname} goes back from ${to} to ${words.system(state.baseline.running)}`;
    return { style: "bad", text, more: [...why, ...began] };
  }
  const far = fetched === null ? "" : `, ${describeProgress(fetched, fetched.rate)}`;
  const text = `${hostname} is updating to ${to}: ${describeStep(state)}${far}`;
  return { style: "busy", text, more: began };
}

/** An attempt that failed, and when the next one comes. */
function failed(state: StateOf<"Failed">, status: HostStatus, words: HostWords): Headline {
  const { release, reason, attempts, retryAt, gaveUp = false } = state;
  const tried = attempts > 1 ? ` after ${attempts} attempts` : "";
  const isDue = Date.parse(retryAt) <= words.times.now.getTime();
  const next = gaveUp
    ? `It was given up${tried}: it waits for \`nixos-pull apply\` or another release.`
    : `${tried === "" ? "It" : `That was attempt ${attempts}. It`} is tried again ` +
      `${isDue ? "at the next poll" : `${words.message(`at ${retryAt}`)}${words.away(retryAt)}`}.`;
  const position = describePosition({ ...release, epoch: release.epoch ?? 0 });
  const text = `release ${position} failed: ${words.reason(reason)}`;
  return { style: "bad", text, more: [runs(status), next] };
}

/** A release that failed here and is not tried again. */
function undone(status: HostStatus, words: HostWords): Headline | null {
  const { lastPoll, record } = status;
  if (!lastPoll?.release) return null;
  const { sequence, toplevel } = lastPoll.release;
  const denial = record.denied.findLast((it) => it.toplevel === toplevel);
  // A person may have left it since the last poll, which found it right.
  const isSince = denial !== undefined && Date.parse(denial.at) > Date.parse(lastPoll.at);
  if (!isSince && !["denied", "update"].includes(lastPoll.decision ?? "")) return null;
  const reason = denial?.reason ?? lastPoll.error;
  if (reason === null) return null;
  const again = denial
    ? ["It is not tried again: another release, or `nixos-pull apply --again`, ends that."]
    : [];
  const when = denial ? ` ${words.times.ago(denial.at)}` : "";
  const more = [runs(status), ...again];
  if (reason.code === "RELEASE_DENIED") {
    const text = `${status.hostname} left release ${sequence}${when}: ${words.message(reason.message)}`;
    return { style: "waiting", text, more, tells: "denial" };
  }
  const text = `release ${sequence} failed${when}: ${words.reason(reason)}`;
  return { style: "bad", text, more, tells: "denial" };
}

function needingReboot(status: HostStatus, words: HostWords): Headline | null {
  const { record, rebootPolicy } = status;
  const { pendingReboot } = record;
  if (pendingReboot === null) return null;
  const { sequence } = pendingReboot.release;
  const text = pendingReboot.wayBack
    ? `REBOOT NEEDED: only a boot leads back from release ${sequence}`
    : `REBOOT NEEDED: release ${sequence} waits for it`;
  const blocked = status.lastPoll?.error ?? null;
  const more = [
    ...(pendingReboot.why === undefined ? [] : [`${capital(words.message(pendingReboot.why))}.`]),
    ...(pendingReboot.wayBack ? [] : [`Policy ${rebootPolicy}: ${whoReboots(rebootPolicy)}.`]),
    ...(blocked ? [words.reason(blocked)] : []),
    ...(isTrial(pendingReboot) ? [namesBoot(pendingReboot, words)] : []),
  ];
  return { style: "waiting", text, more, tells: "reboot" };
}

function changedByHand(status: HostStatus, words: HostWords): Headline | null {
  const { hostname, drift, record } = status;
  if (!drift) return null;
  const release = record.committed ? `release ${record.committed.sequence}` : "the release";
  return {
    style: "waiting",
    text: `${hostname} was changed by hand: ${words.message(describeDrift(drift))}`,
    more: [`It is left alone; \`nixos-pull apply --again\` brings ${release} back.`],
    tells: "drift",
  };
}

function waiting(status: HostStatus, words: HostWords): Headline | null {
  const { hostname, hold, lastPoll } = status;
  const waits = lastPoll?.waits ?? [];
  const [first] = waits;
  const name = `release ${lastPoll?.release?.sequence ?? "?"}`;
  if (waits.length > 1) {
    const text = `${name} waits for ${waits.length} things`;
    return { style: "waiting", text, more: [runs(status)] };
  }
  // The hold of the last poll may have ended since.
  if (first && (first.reason !== "HELD" || hold.kind !== "none")) {
    const tells = first.reason === "HELD" ? "hold" : "waits";
    const text = `${name} waits: ${describeWait(first, words)}`;
    return { style: "waiting", text, more: [runs(status)], tells };
  }
  if (hold.kind === "none") return null;
  const text = `${hostname} is ${words.message(describeHold(hold))}`;
  return { style: "waiting", text, more: [runs(status)], tells: "hold" };
}

/** A poll that found nothing to follow, and why. */
function notPolled(status: HostStatus, words: HostWords): Headline | null {
  const { hostname, lastPoll } = status;
  if (!lastPoll?.error) return null;
  const { error } = lastPoll;
  const exit = isErrorCode(error.code) ? ERROR_KINDS[error.code].exit : EXIT.internal;
  const runsIt = status.record.committed
    ? `runs ${nameOf(status.record)}`
    : `has no release of ${status.channel} yet`;
  if (error.code === "MIRROR_ABSENT") {
    const text = `${hostname} ${runsIt}; no mirror is there now`;
    return { style: "waiting", text, more: [words.reason(error)] };
  }
  const what =
    exit === EXIT.trust ? "it cannot follow what the mirrors have" : "no release could be read";
  return { style: "bad", text: `${hostname} ${runsIt}; ${what}`, more: [words.reason(error)] };
}

/** Nothing is wrong, and nothing is to come. */
function settled({ hostname, channel, record, lastPoll }: HostStatus, words: HostWords): Headline {
  const { committed } = record;
  if (committed === null) {
    const text = lastPoll
      ? `${hostname} follows no release of ${channel} yet`
      : `${hostname} has never asked a mirror for a release of ${channel}`;
    return { style: "waiting", text, more: [] };
  }
  const { at } = committed;
  const isLatest = ["active", "adopt", "applied"].includes(lastPoll?.decision ?? "");
  const what = isLatest ? "is up to date with" : "runs";
  const text = `${hostname} ${what} ${nameOf(record)}, since ${words.times.ago(at)}`;
  return { style: isLatest ? "good" : "waiting", text, more: [] };
}

/** What the host runs meanwhile. */
function runs({ hostname, record }: HostStatus): string {
  return record.committed === null
    ? `${hostname} runs a system that no release brought.`
    : `${hostname} runs ${nameOf(record)}.`;
}

function nameOf({ committed }: AgentRecord): string {
  return committed ? releaseName(committed) : "no release";
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
