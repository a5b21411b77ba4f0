import { PullError } from "../../agent/core/errors.ts";
import { holdHost } from "../../agent/host/operator-commands.ts";
import { rollBackByHand } from "../../agent/host/roll-back.ts";
import { tick } from "../../agent/host/tick.ts";
import type { State } from "../../agent/core/update/states.ts";
import { MemoryHost, system } from "./memory-host.ts";
import { sampleHost } from "./sample-release.ts";
import { waitingHost } from "./waiting-host.ts";

const PATIENT = { insistence: "patient" } as const;
const HOUR = 60 * 60_000;

/** A host that follows release 7, whose service runs, three hours after its last update. */
async function settledHost(config: object = {}): Promise<MemoryHost> {
  const host = new MemoryHost(config);
  host.publish({ sequence: 7, system: "2" });
  await tick(host.tools, PATIENT);
  return later(host, 3 * HOUR);
}

/** The host so much later, after another poll, with its service running. */
async function later(host: MemoryHost, ms: number): Promise<MemoryHost> {
  host.time.advance(ms);
  await tick(host.tools, PATIENT);
  host.time.advance(4 * 60_000);
  host.locked.add("agent");
  return host;
}

/** Polls, and looks two minutes later. */
async function polled(host: MemoryHost): Promise<MemoryHost> {
  await tick(host.tools, PATIENT);
  host.time.advance(2 * 60_000);
  host.locked.add("agent");
  return host;
}

/** A host in the middle of release 8: the agent was ended when it reached a state. */
async function hostIn(state: State["name"], isAlive: boolean): Promise<MemoryHost> {
  const host = await settledHost();
  host.publish({ sequence: 8, system: "3" });
  const { state: port } = host.tools;
  const save = port.save.bind(port);
  const stopped = new PullError("INTERRUPTED", "stopped");
  const failing = {
    ...host.tools,
    state: {
      ...port,
      save: async (record: Parameters<typeof save>[0]) => {
        if (host.record?.state.name === state) throw stopped;
        return save(record);
      },
    },
  };
  await tick(failing, PATIENT).catch(() => undefined);
  host.locked.delete("update");
  host.time.advance(90_000);
  if (isAlive) host.locked.add("update").add("agent");
  else host.locked.delete("agent");
  return host;
}

/** Every standing that a host can have, by what a person would call it. */
export const STANDINGS: Readonly<Record<string, () => Promise<MemoryHost>>> = {
  "new: never polled": async () => new MemoryHost(),
  "up to date": () => settledHost(),
  "up to date, with warnings of the switch": async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", {
      exitCode: 4,
      facts: { failedUnits: ["sick.service"] },
      lines: ["warning: the following units failed: sick.service"],
    });
    return polled(host);
  },
  "up to date, but no agent runs": async () => {
    const host = await settledHost();
    host.locked.delete("agent");
    return host;
  },
  "adopted: it was that system already": async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "1" });
    return polled(host);
  },
  "waits for a maintenance window": async () => {
    const host = await settledHost({
      maintenance: { windows: [{ cron: "0 23 * * *", duration: "2h", timezone: "UTC" }] },
    });
    host.publish({ sequence: 8, system: "3" });
    return later(host, 60_000);
  },
  "waits for a confirmation": async () => {
    const host = await settledHost();
    const confirming = new MemoryHost({ activation: { confirm: "required" } });
    Object.assign(confirming, { record: host.record, history: host.history });
    confirming.generations.set(2, system("2"));
    Object.assign(confirming, { generation: 2, running: system("2"), booted: system("1") });
    confirming.time.set(host.time.now().toISOString());
    confirming.publish({ sequence: 8, system: "3" });
    return polled(confirming);
  },
  "waits for its turn": async () => {
    const host = await settledHost();
    host.publish({
      ...{ sequence: 8, system: "3" },
      rollout: {
        start: "2026-02-01T03:00:00Z",
        salt: "s",
        waves: [
          { after: "0s", groups: ["canary"] },
          { after: "5h", share: 1 },
        ],
      },
    });
    return polled(host);
  },
  "held, and a release waits": async () => {
    const host = await settledHost();
    await holdHost(host.tools, { until: "2026-02-02T12:00:00.000Z", reason: "the fair is open" });
    host.publish({ sequence: 8, system: "3" });
    return polled(host);
  },
  "waits for two things": async () => {
    const host = await settledHost({
      maintenance: { windows: [{ cron: "0 23 * * *", duration: "2h", timezone: "UTC" }] },
    });
    await holdHost(host.tools, { until: null, reason: null });
    host.publish({ sequence: 8, system: "3" });
    return polled(host);
  },
  "waits for a reboot that a person makes": () =>
    waitingHost("the boot loader is not known").then(polled),
  "waits for a reboot that tries it": () =>
    waitingHost(null, "boot", { reboot: { policy: "now" } }).then(polled),
  "waits for a reboot into a release that was withdrawn": async () => {
    const host = await waitingHost(null);
    host.time.advance(HOUR);
    host.publish({ sequence: 8, system: "1" });
    host.locked.add("agent");
    return host;
  },
  "updating: downloading": async () => {
    const host = await hostIn("Fetching", true);
    const told = { received: 340 * 2 ** 20, total: 812 * 2 ** 20, rate: 12 * 2 ** 20 };
    host.toldProgress = { process: 4242, at: host.time.now().toISOString(), ...told };
    return host;
  },
  "updating: activating": () => hostIn("Activating", true),
  "updating: checking its health": () => hostIn("Verifying", true),
  "left while it downloaded, and no agent runs": () => hostIn("Fetching", false),
  "left while it was activated, and no agent runs": () => hostIn("Activating", false),
  "failed: no archive": async () => {
    const host = await settledHost();
    host.publish({ sequence: 8, system: "3" });
    host.fetchErrors.push(
      new PullError(
        "MIRROR_NOT_FOUND",
        "https://a.example.org/archives/0123.tar: expected the archive of release 8, found 404",
      ),
    );
    return polled(host);
  },
  "failed: it was activated, and undone": async () => {
    const host = await settledHost();
    host.publish({ sequence: 8, system: "3" });
    host.nextSwitch("test 3", {
      exitCode: 1,
      lines: ["starting web.service", "Job for web.service failed."],
    });
    return polled(host);
  },
  "denied: it failed here before": async () => {
    const host = await settledHost();
    host.publish({ sequence: 8, system: "3" });
    host.nextSwitch("test 3", { exitCode: 1, lines: ["Job for web.service failed."] });
    await tick(host.tools, PATIENT);
    return later(host, 26 * HOUR);
  },
  "given up": async () => {
    const host = await settledHost({ activation: { attempts: 1 } });
    host.publish({ sequence: 8, system: "3" });
    host.nextSwitch("test 3", { exitCode: null, lines: ["starting web.service"] });
    return polled(host);
  },
  "the agent is too old": async () => {
    const host = await settledHost();
    host.publish({ sequence: 8, system: "3", requires: ["teleport"] });
    return polled(host);
  },
  "no mirror answers": async () => {
    const host = await settledHost();
    for (const mirror of host.mirrors) mirror.down = "MIRROR_UNREACHABLE";
    return polled(host);
  },
  "a mirror serves an older release": async () => {
    const host = await settledHost();
    host.publish({ sequence: 6, system: "1" });
    return polled(host);
  },
  "the release does not name it": async () => {
    const host = await settledHost();
    host.publish({ sequence: 8, system: "3", hosts: { db1: sampleHost() } });
    return polled(host);
  },
  "alarms: a damaged state and a damaged hold": async () => {
    const host = await settledHost();
    host.hold = { kind: "damaged", why: "not JSON" };
    host.stateAlarms.push(
      new PullError("STATE_CORRUPT", "state: trust.json is damaged; another copy is used"),
    );
    return host;
  },
  "changed by hand": async () => {
    const host = await settledHost();
    host.running = system("5");
    return polled(host);
  },
  "went back by hand": async () => {
    const host = await settledHost();
    host.locked.delete("agent");
    await rollBackByHand(host.tools, null);
    return polled(host);
  },
  "went back by hand, before the next poll": async () => {
    const host = await settledHost();
    host.locked.delete("agent");
    await rollBackByHand(host.tools, null);
    return host;
  },
};
