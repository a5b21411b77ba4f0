import { describe, expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import type { AgentTools } from "../../../../agent/host/agent-tools.ts";
import { runDaemon } from "../../../../agent/host/daemon/daemon.ts";
import { makeReport } from "../../../../agent/host/report/host-report.ts";
import { readStatus } from "../../../../agent/host/report/host-status.ts";
import { statusJson, statusSchema } from "../../../../agent/host/report/status-json.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";

const MINUTE_MS = 60_000;

/** Runs the service of a host for so long. */
async function served(host: MemoryHost, ms: number): Promise<void> {
  const stop = new AbortController();
  void host.time.sleep(ms).then(() => {
    stop.abort();
  });
  await runDaemon(host.tools, stop.signal);
}

describe("the service", () => {
  test("polls as often as the settings say, and tells what it did", async () => {
    const host = new MemoryHost({ poll: { interval: "10m", jitter: "0s" } });
    host.publish({ sequence: 7, system: "2" });
    await served(host, 35 * MINUTE_MS);
    expect(host.files.get("counters.json")).toEqual({ polls: 4, pollFailures: 0, updates: 1 });
    expect(host.logged[0]).toMatch(/^info: reports of this host are signed with host-web1:/);
    expect(host.logged[1]).toBe(
      "info: following channel stable as web1 from https://a.example.org/",
    );
    expect(host.logged.at(-1)).toBe("info: stopped");
    expect([...host.locked]).toEqual([]);
  });

  test("ends soon after the host got another name, to go on by that", async () => {
    const host = new MemoryHost({ poll: { interval: "1h", jitter: "0s" } });
    host.publish({ sequence: 7, system: "1" });
    void host.time.sleep(12_000).then(() => {
      host.name = "-no name-";
    });
    void host.time.sleep(22_000).then(() => {
      host.name = "edge7";
    });
    expect(await runDaemon(host.tools, new AbortController().signal)).toBe("renamed");
    expect(host.time.steadyMs()).toBeLessThan(30_000);
    expect(host.logged).toContain("info: this host is called edge7 now; polling now");
    expect([...host.locked]).toEqual([]);
  });

  test("that follows one that hung says so in the history, in status and in reports, for a day", async () => {
    const host = new MemoryHost({ poll: { interval: "1h", jitter: "0s" } });
    host.publish({ sequence: 7, system: "1" });
    host.hungAt = host.tools.clock.now();
    await served(host, MINUTE_MS);
    expect(host.isWatched).toBe(false);
    const hung = host.history.filter(({ event }) => event === "AgentHung");
    expect(hung).toMatchObject([{ state: "Idle", code: "AGENT_HUNG" }]);
    const message = `the service gave no sign of life in state Idle, and systemd ended it at `;
    expect(hung[0]?.message).toContain(message);
    expect((await readStatus(host.tools)).alarms).toMatchObject([{ code: "AGENT_HUNG" }]);
    expect((await makeReport(host.tools)).code).toBe("AGENT_HUNG");
    await served(host, MINUTE_MS);
    expect(host.history.filter(({ event }) => event === "AgentHung")).toHaveLength(1);
    host.time.advance(25 * 60 * MINUTE_MS);
    expect((await readStatus(host.tools)).alarms).toEqual([]);
    expect((await makeReport(host.tools)).code).not.toBe("AGENT_HUNG");
  });

  test("keeps a name of its own, whatever the system is called", async () => {
    const host = new MemoryHost({ hostname: "web1", poll: { interval: "10m", jitter: "0s" } });
    host.publish({ sequence: 7, system: "1" });
    host.name = "edge7";
    await served(host, 15 * MINUTE_MS);
    expect(host.files.get("counters.json")).toMatchObject({ polls: 2 });
  });

  test("adds jitter to each wait", async () => {
    const host = new MemoryHost({ poll: { interval: "10m", jitter: "10m" } });
    host.publish({ sequence: 7, system: "1" });
    await served(host, 35 * MINUTE_MS);
    expect(host.files.get("counters.json")).toMatchObject({ polls: 3 });
  });

  test("is there once on a host", async () => {
    const host = new MemoryHost();
    host.locked.add("agent");
    const error = await rejectionOf(runDaemon(host.tools, new AbortController().signal));
    expect([error.code, error.message]).toEqual([
      "AGENT_RUNNING",
      "another nixos-pull run has /var/lib/nixos-pull/agent.lock; stop it first",
    ]);
  });

  test("outlives what a library throws where nobody can catch it, and resumes its download", async () => {
    const host = new MemoryHost({ poll: { interval: "10m", jitter: "0s" } });
    host.publish({ sequence: 7, system: "2" });
    host.fetchMs = 2 * MINUTE_MS;
    void host.time.sleep(MINUTE_MS).then(() => {
      for (const listener of host.strayListeners) listener(new PullError("INTERNAL", "assertion"));
    });
    const status: unknown[] = [];
    void host.time.sleep(2 * MINUTE_MS).then(() => {
      status.push(host.files.get("poll.json"));
    });
    await served(host, 25 * MINUTE_MS);
    expect(status).toMatchObject([{ error: { code: "INTERNAL", message: "assertion" } }]);
    expect(host.logged).toContain("error: INTERNAL: assertion");
    const calls = host.takeCalls();
    expect(calls.filter((call) => call === "close connections")).toHaveLength(1);
    expect(calls.indexOf("close connections")).toBeLessThan(calls.indexOf("fetched release 7"));
    expect(host.running).toBe(system("2"));
    expect(host.strayListeners).toEqual([]);
  });

  test("comes back for a retry before its next poll", async () => {
    const host = new MemoryHost({ poll: { interval: "1h", jitter: "0s" } });
    host.publish({ sequence: 7, system: "2" });
    host.fault("fetch 2", "MIRROR_STALLED", "stalled");
    await served(host, 5 * MINUTE_MS);
    expect(host.running).toBe(system("2"));
    expect(host.logged).toContain("error: MIRROR_STALLED: stalled");
  });

  test("polls again soon after a poll without network, however rare its polls are", async () => {
    const host = new MemoryHost({ poll: { cron: "0 3 * * *", jitter: "0s" } });
    host.publish({ sequence: 7, system: "2" });
    for (const mirror of host.mirrors) mirror.down = "MIRROR_UNREACHABLE";
    void host.time.sleep(10 * MINUTE_MS).then(() => {
      for (const mirror of host.mirrors) mirror.down = null;
    });
    await served(host, 20 * MINUTE_MS);
    expect(host.running).toBe(system("2"));
    // After 1, 2, 4 and 8 minutes.
    expect(host.files.get("counters.json")).toMatchObject({ polls: 5, pollFailures: 4 });
  });

  test("polls once the clock was set, or after a suspension", async () => {
    const host = new MemoryHost({ poll: { interval: "6h", jitter: "0s" } });
    host.publish({ sequence: 7, system: "1" });
    for (const [after, time] of [
      [10, "2026-02-03T00:00:00.000Z"],
      [20, "2026-02-01T00:00:00.000Z"],
    ] as const) {
      void host.time.sleep(after * MINUTE_MS + 1).then(() => {
        host.time.set(time);
      });
    }
    await served(host, 30 * MINUTE_MS);
    expect(host.files.get("counters.json")).toMatchObject({ polls: 3 });
    const said = host.logged.filter((line) => line.endsWith("polling now"));
    expect(said).toHaveLength(2);
    expect(said[0]).toContain("ahead of the time that passed");
    expect(said[1]).toContain("the clock was set back by");
  });

  test("tells what fails by its hook, once for each code and release", async () => {
    const host = new MemoryHost({
      poll: { interval: "10m", jitter: "0s" },
      limits: { retryBase: "5m", retryMax: "5m" },
      hooks: { onFailure: ["/tell"] },
    });
    const told = (): unknown[] =>
      host.hooks.map(({ variables }) => [
        ...[variables["NIXOS_PULL_CODE"], variables["NIXOS_PULL_RELEASE"]],
        variables["NIXOS_PULL_MESSAGE"],
      ]);
    for (const mirror of host.mirrors) mirror.down = "MIRROR_UNREACHABLE";
    await served(host, 15 * MINUTE_MS);
    const unreachable = "https://a.example.org/: MIRROR_UNREACHABLE";
    expect(told()).toEqual([["MIRROR_UNREACHABLE", "", unreachable]]);
    for (const mirror of host.mirrors) mirror.down = null;
    host.publish({ sequence: 7, system: "2" });
    for (const call of ["fetch 2", "fetch 2 "]) host.fault(call, "DISK_FULL", "no room");
    await served(host, 30 * MINUTE_MS);
    expect(host.running).toBe(system("2"));
    expect(told().slice(1)).toEqual([["DISK_FULL", "7", "no room"]]);
    expect(host.hooks[1]).toMatchObject({
      command: ["/tell"],
      variables: {
        ...{ NIXOS_PULL_HOOK: "onFailure", NIXOS_PULL_HOSTNAME: "web1" },
        ...{ NIXOS_PULL_RESULT: "failed", NIXOS_PULL_PREVIOUS: system("1") },
      },
    });
  });

  test("goes on if that hook fails", async () => {
    const host = new MemoryHost({
      ...{ poll: { interval: "10m", jitter: "0s" }, hooks: { onFailure: ["/tell"] } },
    });
    host.failing.set("/tell", "exit code 1");
    host.stateLoss = new PullError("STATE_LOST", "gone");
    await served(host, 15 * MINUTE_MS);
    expect(host.hooks).toHaveLength(1);
    expect(host.logged).toContain("warn: HOOK_FAILED: onFailure: exit code 1");
    expect(host.logged.filter((line) => line === "error: STATE_LOST: gone")).toHaveLength(2);
  });

  test("is not held for long by a failure that a clock two days ahead recorded", async () => {
    const host = new MemoryHost({ poll: { interval: "15m", jitter: "0s" } });
    host.publish({ sequence: 7, system: "2" });
    host.fault("fetch 2", "MIRROR_STALLED", "stalled");
    host.time.set("2026-02-03T00:00:00.000Z");
    await served(host, 1_000);
    expect(host.record?.state.name).toBe("Failed");
    host.time.set("2026-02-01T00:00:00.000Z");
    await served(host, 20 * MINUTE_MS);
    expect(host.running).toBe(system("2"));
  });

  test("waits a little for another process at work", async () => {
    const host = new MemoryHost({ poll: { interval: "1h", jitter: "0s" } });
    host.publish({ sequence: 7, system: "2" });
    host.locked.add("update");
    void host.time.sleep(15_000).then(() => {
      host.locked.delete("update");
    });
    await served(host, MINUTE_MS);
    expect(host.history[0]).toMatchObject({ at: "2026-02-01T00:00:20.000Z" });
  });

  test("polls at once if somebody commanded something", async () => {
    const host = new MemoryHost({ poll: { interval: "1h", jitter: "0s" } });
    host.publish({ sequence: 7, system: "1" });
    host.news = "commands";
    await served(host, MINUTE_MS);
    expect(host.files.get("counters.json")).toMatchObject({ polls: 2 });
    expect(host.logged).toContain("info: somebody gave this host an order; polling now");
  });

  test("ends for another agent of this system", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "1" });
    host.successor = { differs: true, hasUnit: true };
    await runDaemon(host.tools, new AbortController().signal);
    expect(host.logged.at(-1)).toBe(
      "info: this system has another agent or configuration now; ending to be started as that",
    );
    expect([...host.locked]).toEqual([]);
  });

  test("delivers reports, serves what it is asked for and writes metrics", async () => {
    const host = new MemoryHost({
      reports: { directory: "/srv/reports" },
      statusSocket: { path: "/run/nixos-pull/status.sock" },
      metrics: { textfile: "/var/lib/metrics/nixos-pull.prom", listen: "127.0.0.1:9100" },
    });
    host.publish({ sequence: 7, system: "1" });
    host.fault("deliver report", "IO_FAILED", "not mounted");
    await served(host, 2 * MINUTE_MS);
    const calls = host.takeCalls().filter((call) => !/^disarm|^abandon/.test(call));
    expect(calls).toEqual([
      "serve status at /run/nixos-pull/status.sock",
      "serve metrics at 127.0.0.1:9100",
      "write metrics to /var/lib/metrics/nixos-pull.prom",
      "deliver report to directory",
    ]);
    expect(host.logged).toContain(
      "warn: IO_FAILED: the report could not be delivered: not mounted",
    );
    expect(host.logged).toContain("info: the report was delivered (directory), attempt 2");
    expect([host.reports.length, host.spool]).toEqual([1, null]);
  });

  test("answers on its socket what status --json prints", async () => {
    const host = new MemoryHost({ statusSocket: { path: "/run/status.sock", group: "wheel" } });
    host.publish({ sequence: 7, system: "2" });
    const sockets: object[] = [];
    let answer = async (): Promise<string> => "";
    let closed = 0;
    const close = async (): Promise<void> => {
      closed++;
    };
    const outlets: AgentTools["outlets"] = {
      ...host.tools.outlets,
      serveStatus: async (socket, ask) => {
        sockets.push(socket);
        answer = ask;
        return close;
      },
      serveMetrics: async () => close,
    };
    const stop = new AbortController();
    void host.time.sleep(MINUTE_MS).then(() => {
      stop.abort();
    });
    await runDaemon({ ...host.tools, outlets }, stop.signal);
    expect([sockets, closed]).toEqual([[{ path: "/run/status.sock", group: "wheel" }], 1]);
    const text = await answer();
    expect(text).toBe(`${JSON.stringify(statusJson(await readStatus(host.tools)), null, 2)}\n`);
    expect(statusSchema.parse(JSON.parse(text))).toMatchObject({
      ...{ profile: system("2"), running: system("2"), booted: system("1"), generation: 2 },
      ...{ committed: { sequence: 7 }, alarms: [], hostname: "web1" },
    });
  });

  test("goes on without a socket, and without a key to sign reports with", async () => {
    const host = new MemoryHost({ statusSocket: { path: "/run/status.sock" } });
    host.publish({ sequence: 7, system: "1" });
    host.fault("serve status", "IO_FAILED", "in use");
    const hostKey = () => Promise.reject(new PullError("KEY_INVALID", "torn"));
    const stop = new AbortController();
    void host.time.sleep(MINUTE_MS).then(() => {
      stop.abort();
    });
    await runDaemon({ ...host.tools, hostKey }, stop.signal);
    expect(host.logged.slice(0, 2)).toEqual([
      "error: IO_FAILED: there is no status socket: in use",
      "error: KEY_INVALID: this host cannot sign reports: torn",
    ]);
    expect(host.files.get("counters.json")).toMatchObject({ polls: 1 });
  });

  test("goes on after a tick that failed as a whole", async () => {
    const host = new MemoryHost({ poll: { interval: "10m", jitter: "0s" } });
    host.stateLoss = new PullError("STATE_LOST", "gone");
    await served(host, 15 * MINUTE_MS);
    const line = "error: STATE_LOST: gone";
    expect(host.logged.filter((it) => it === line)).toHaveLength(2);
    const told = host.log.lines.find(({ level }) => level === "error");
    expect(told?.fields["stack"]).toContain("PullError");
  });
});
