import { BUILD } from "../../core/build.ts";
import { memoryOf } from "../../core/release/acceptance.ts";
import { driftOf } from "../../core/update/drift.ts";
import { EMPTY_RECORD, type AgentRecord, type Denial } from "../../core/update/record.ts";
import { isPastTheLine, type Reason, type StateOf } from "../../core/update/states.ts";
import {
  MAX_REPORT_MESSAGE,
  MAX_REPORT_WAITS,
  sealReport,
  type Report,
} from "../../core/formats/report.ts";
import { platformOf } from "../../core/formats/platform.ts";
import { STORE_DIRECTORY } from "../../core/formats/store-path.ts";
import type { AgentTools } from "../agent-tools.ts";
import type { HoldRead } from "../../core/schedule/hold.ts";
import { currentHold } from "../current-hold.ts";
import { HUNG, hangAlarms } from "../daemon/hang.ts";
import { observe } from "../observe.ts";
import { readPollReport, type PollReport } from "../poll/poll-report.ts";
import { failedUpdate } from "./failed-update.ts";
import { holdAlarms, type StatusTools } from "./host-status.ts";

/** A hold as reports have it; of one that cannot be read, nothing but that there is one. */
function reportedHold(read: Exclude<HoldRead, { kind: "none" }>): Report["hold"] {
  if (read.kind === "damaged") return { at: null, until: null, reason: null };
  const { at, until, reason } = read.hold;
  return { at, until, reason };
}

/** What making a report takes. */
export type ReportTools = StatusTools & Pick<AgentTools, "disk" | "features" | "machine">;

/** What this host has to say about itself, from disk alone. */
export async function makeReport(tools: ReportTools): Promise<Report> {
  const { settings, state, clock, history, files } = tools;
  const [{ record: found, alarms: recalled }, lastPoll, host, hold, machineId, disk, entries] =
    await Promise.all([
      state.recall(),
      readPollReport(files),
      observe(tools),
      currentHold(tools),
      tools.machineId(),
      storeDisk(tools),
      history.read(),
    ]);
  const hung = entries.findLast(({ event }) => event === HUNG) ?? null;
  const alarms = [...hangAlarms(hung, clock.now()), ...holdAlarms(hold), ...recalled];
  const record = found ?? EMPTY_RECORD;
  const { committed } = record;
  const drift = isPastTheLine(record.state) ? null : driftOf(record, host);
  const waits = (lastPoll?.waits ?? [])
    .slice(0, MAX_REPORT_WAITS)
    .map(({ reason, message, until }) => ({
      ...{ reason, message: message.slice(0, MAX_REPORT_MESSAGE), until },
    }));
  const trust = memoryOf(record.trust, settings.channel);
  // A host that forgot what it accepted says so before anything else.
  const reason = alarms.at(-1) ?? reasonOf(record, lastPoll);
  const platform = platformOf(tools.machine);
  const denied = reason?.code === "RELEASE_DENIED" ? denialOf(record, lastPoll) : undefined;
  const failure = failedUpdate(entries, committed?.at ?? null, denied?.toplevel);
  return {
    formatVersion: 1,
    hostname: settings.hostname,
    machineId,
    at: clock.now().toISOString(),
    channel: settings.channel,
    release: committed && {
      sequence: committed.sequence,
      digest: committed.digest,
      toplevel: committed.toplevel,
      rebootNeeded: record.pendingReboot !== null,
      committedAt: committed.at,
    },
    accepted: trust && { epoch: trust.epoch ?? 0, sequence: trust.sequence, digest: trust.digest },
    state: record.state.name,
    code: reason?.code ?? null,
    message: reason?.message.slice(0, MAX_REPORT_MESSAGE) ?? null,
    ...{ profile: host.profile, running: host.running, booted: host.booted ?? null },
    ...(waits.length > 0 && { waits }),
    ...(hold.kind !== "none" && { hold: reportedHold(hold) }),
    ...(drift && { drift }),
    agentVersion: BUILD.version,
    features: [...tools.features],
    ...(platform !== null && { platform }),
    ...(lastPoll && {
      lastPoll: {
        at: lastPoll.at,
        decision: lastPoll.decision,
        sequence: lastPoll.release?.sequence ?? null,
      },
    }),
    ...(record.pendingReboot && { pendingReboot: rebootOf(record.pendingReboot, tools) }),
    ...(failure && { failure: { ...failure, ...(hasGivenUp(record) && { gaveUp: true }) } }),
    ...(disk && { disk }),
  };
}

/** What is wrong with the last attempt, or else with the last poll. */
function reasonOf(record: AgentRecord, lastPoll: PollReport | null): Reason | null {
  if (hasGivenUp(record)) return tiredOf(record.state);
  if ("reason" in record.state) return record.state.reason;
  if (lastPoll?.decision === "denied" && !lastPoll.error) return denialFor(record, lastPoll);
  return lastPoll?.error ?? null;
}

/** Whether the last release was tried often enough, and waits for somebody. */
function hasGivenUp(
  record: AgentRecord,
): record is AgentRecord & { readonly state: StateOf<"Failed"> } {
  return record.state.name === "Failed" && record.state.gaveUp === true;
}

function tiredOf({ release, reason, undone = 0 }: StateOf<"Failed">): Reason {
  const words = `release ${release.sequence} waits for a person or another release`;
  const times = `${undone} ${undone === 1 ? "try" : "tries"}`;
  return { code: reason.code, message: `${words} after ${times}: ${reason.message}` };
}

/** A release that failed here and is not tried again stays wrong, however often it is found. */
function denialFor(record: AgentRecord, poll: PollReport): Reason {
  const sequence = poll.release?.sequence;
  const denial = denialOf(record, poll);
  const why = denial ? `${denial.reason.code}: ${denial.reason.message}` : "it failed before";
  return {
    code: "RELEASE_DENIED",
    message: `release ${sequence ?? "?"} is not tried again here: ${why}`,
  };
}

/** The denial of what the last poll found; the last one, if none has its system or its number. */
function denialOf({ denied }: AgentRecord, poll: PollReport | null): Denial | undefined {
  const { sequence, toplevel } = poll?.release ?? {};
  return (
    denied.findLast((it) => it.toplevel === toplevel) ??
    denied.findLast((it) => it.sequence === sequence) ??
    denied.at(-1)
  );
}

function rebootOf(
  { release, wayBack, requested, why }: NonNullable<AgentRecord["pendingReboot"]>,
  { settings }: Pick<AgentTools, "settings">,
): NonNullable<Report["pendingReboot"]> {
  const message = wayBack
    ? `the way back from release ${release.sequence} is complete only after a reboot`
    : `release ${release.sequence} is complete only after a reboot${why === undefined ? "" : `: ${why}`}`;
  const { policy } = settings.reboot;
  return {
    ...{ sequence: release.sequence, policy, requested },
    message: message.slice(0, MAX_REPORT_MESSAGE),
  };
}

/** A report without the disk is better than none. */
async function storeDisk({
  disk,
  store,
}: Pick<AgentTools, "disk" | "store">): Promise<Report["disk"] | null> {
  const found = await disk.freeSpace(store.realPath(STORE_DIRECTORY)).catch(() => null);
  return found?.total === undefined ? null : { free: found.free, total: found.total };
}

/** What making a signed report takes. */
export type SignedReportTools = ReportTools & Pick<AgentTools, "hostKey">;

/** The signed report and the key that signed it. Throws KEY_INVALID and the system's errors. */
export async function signedReport(
  tools: SignedReportTools,
): Promise<{ envelope: string; report: Report; publicKey: string }> {
  await tools.state.prepare();
  const key = await tools.hostKey();
  const report = { ...(await makeReport(tools)), publicKey: key.publicKey.text };
  return { envelope: sealReport(report, key), report, publicKey: key.publicKey.text };
}
