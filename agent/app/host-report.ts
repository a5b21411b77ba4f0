import { BUILD } from "../core/build.ts";
import { memoryOf } from "../core/acceptance.ts";
import { toPullError } from "../core/errors.ts";
import { driftOf } from "../core/drift.ts";
import { EMPTY_RECORD, isPastTheLine } from "../core/machine.ts";
import { sealReport, type Report } from "../core/report.ts";
import { hostKey } from "../effects/host-key.ts";
import { deliverReport } from "../effects/report-outbox.ts";
import { Transport } from "../effects/transport.ts";
import { Agent, type AgentTools } from "./agent.ts";
import { currentHold, holdAlarms } from "./host-status.ts";
import { observe } from "./observe.ts";

/** Longer texts are for the host's own log. */
const MAX_MESSAGE = 500;

const UNREADABLE_HOLD = { at: null, until: null, reason: null };

/** What this host has to say about itself, from disk alone. */
export async function makeReport(tools: AgentTools): Promise<Report> {
  const { settings, state, store, clock } = tools;
  const [{ record: found, alarms: recalled }, lastPoll, host, hold, machineId] = await Promise.all([
    state.recall(),
    new Agent(tools).lastPoll(),
    observe(store),
    currentHold(tools),
    tools.machineId?.() ?? null,
  ]);
  const alarms = [...holdAlarms(hold), ...recalled];
  const record = found ?? EMPTY_RECORD;
  const { committed } = record;
  const drift = isPastTheLine(record.state) ? null : driftOf(record, host);
  const waits = (lastPoll?.waiting?.waits ?? []).map(({ reason, message, until }) => ({
    ...{ reason, message: message.slice(0, MAX_MESSAGE), until },
  }));
  const trust = memoryOf(record.trust, settings.channel);
  // A host that forgot what it accepted says so before anything else.
  const reason = alarms.at(-1) ?? ("reason" in record.state ? record.state.reason : lastPoll);
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
    },
    accepted: trust && { epoch: trust.epoch ?? 0, sequence: trust.sequence, digest: trust.digest },
    state: record.state.name,
    code: reason?.code ?? null,
    message: reason?.message?.slice(0, MAX_MESSAGE) ?? null,
    ...{ profile: host.profile, running: host.running, booted: host.booted ?? null },
    ...(waits.length > 0 && { waits }),
    ...(hold.kind !== "none" && { hold: hold.kind === "held" ? hold.hold : UNREADABLE_HOLD }),
    ...(drift && { drift }),
    agentVersion: BUILD.version,
  };
}

/** The signed report and the key that signed it. */
export async function signedReport(
  tools: AgentTools,
): Promise<{ envelope: string; report: Report; publicKey: string }> {
  const { settings } = tools;
  await tools.state.prepare();
  const key = await hostKey(settings.paths.state, settings.hostname);
  const report = await makeReport(tools);
  return { envelope: sealReport(report, key), report, publicKey: key.publicKey.text };
}

/** Delivers a report where the settings ask for one. Whatever goes wrong is a warning. */
export async function sendReport(tools: AgentTools, signal?: AbortSignal): Promise<void> {
  const { settings, log } = tools;
  if (settings.reports.directory === undefined && settings.reports.url === undefined) return;
  try {
    const { envelope } = await signedReport(tools);
    const transport = new Transport(settings);
    try {
      await deliverReport(envelope, settings, transport, signal);
    } finally {
      await transport.close();
    }
  } catch (thrown) {
    const error = toPullError(thrown);
    if (error.code === "INTERRUPTED") return;
    log.warn(`the report could not be delivered: ${error.message}`, { code: error.code });
  }
}
