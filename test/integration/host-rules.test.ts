import { readFile, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { History } from "../../agent/effects/state/history.ts";
import type { HistoryEntry } from "../../agent/core/update/history-entry.ts";
import { runProcess } from "../../agent/effects/process/subprocess.ts";
import { answerOf, jsonOf } from "../support/answer.ts";
import { honestly, servedRelease } from "../support/attack.ts";
import { moveProfile } from "../support/hand-made-change.ts";
import { rootsOf, snapshotOf } from "../support/host-snapshot.ts";
import { interruptArchive } from "../support/misbehaviours.ts";
import { testEnvironment, type RunningCommand } from "../support/nixos-pull.ts";
import { publishReleases, type ReleaseSeries } from "../support/release-series.ts";
import { createHost, type SandboxHost } from "../support/sandbox.ts";
import { hookSwitches, runsOf } from "../support/scripted-system.ts";
import { suiteDirectory } from "../support/suite-directory.ts";

const directory = suiteDirectory();
let series: ReleaseSeries;
beforeAll(async () => {
  series = await publishReleases(directory);
});

const OFTEN = { poll: { interval: "1s", jitter: "0s" } };
const SELDOM = { poll: { interval: "1d", jitter: "0s" } };
const HOUR_MS = 3_600_000;

/** A cron expression for the second at which it is `ms` later than now. */
function cronIn(ms: number): string {
  const at = new Date(Date.now() + ms);
  return `${at.getUTCSeconds()} ${at.getUTCMinutes()} ${at.getUTCHours()} * * *`;
}

/** Maintenance windows: one that opens then and stays open for an hour. */
function windowIn(ms: number): Record<string, unknown> {
  return { maintenance: { windows: [{ cron: cronIn(ms), duration: "1h" }], jitter: "0s" } };
}

const CLOSED = (): Record<string, unknown> => windowIn(6 * HOUR_MS);

/** Changes settings of a host, as another release's configuration would. */
async function reconfigure(host: SandboxHost, changes: object): Promise<void> {
  const before = JSON.parse(await readFile(host.configFile, "utf8")) as object;
  await writeFile(host.configFile, JSON.stringify({ ...before, ...changes }));
}

async function stop(agent: RunningCommand): Promise<void> {
  agent.child.kill("SIGTERM");
  const { exitCode, stderr } = await agent.ended;
  expect(exitCode, stderr).toBe(0);
}

/** Runs the service until it has said something. */
async function serveUntil(host: SandboxHost, words: string): Promise<void> {
  const agent = host.start("run");
  await agent.sees(words);
  await stop(agent);
}

const past = (host: SandboxHost): Promise<HistoryEntry[]> => new History(host.state).read();

async function lastOf(host: SandboxHost, event: string): Promise<HistoryEntry> {
  const found = (await past(host)).filter((entry) => entry.event === event).at(-1);
  if (!found) throw new Error(`${event} did not happen`);
  return found;
}

interface Status {
  readonly state: { readonly name: string; readonly reason?: { readonly code: string } };
  readonly hold: { readonly kind: string; readonly hold?: { readonly reason: string | null } };
  readonly drift: { readonly what: string; readonly found: string | null } | null;
  readonly alarms: readonly { readonly code: string; readonly message: string }[];
  readonly lastPoll: {
    readonly decision: string;
    readonly release: { readonly sequence: number; readonly digest?: string } | null;
    readonly waits: readonly { readonly reason: string; readonly until: string | null }[];
  };
}

const statusOf = (host: SandboxHost): Promise<Status> => jsonOf<Status>(host, "status");

const waitsOf = async (host: SandboxHost): Promise<string[]> =>
  (await statusOf(host)).lastPoll.waits.map(({ reason }) => reason);

/** What a host reports about itself, without its envelope. */
async function reportOf(host: SandboxHost): Promise<Record<string, unknown>> {
  const envelope = await jsonOfReport(host);
  return JSON.parse(Buffer.from(envelope.payload, "base64").toString()) as Record<string, unknown>;
}

async function jsonOfReport(host: SandboxHost): Promise<{ payload: string }> {
  const { stdout } = await host.run("report");
  return JSON.parse(stdout) as { payload: string };
}

describe("outside of its maintenance windows", () => {
  test("a host fetches a release and does not activate it, and a newer one takes its place", async () => {
    const { mirror, host } = await servedRelease(series, { ...OFTEN, ...CLOSED() });
    const before = await snapshotOf(host);
    const agent = host.start("run");
    await agent.sees("release 2 waits");
    expect((await statusOf(host)).state).toMatchObject({ name: "Imported" });
    expect((await rootsOf(host))["pending"]).toBe(series.toplevels[2]);
    expect(await waitsOf(host)).toEqual(["WINDOW_CLOSED"]);
    expect(await snapshotOf(host)).toEqual(before);
    await mirror.release(3);
    await agent.sees("release 3 waits");
    expect((await rootsOf(host))["pending"]).toBe(series.toplevels[3]);
    expect(await host.stagingIsClean()).toBe(true);
    expect(await snapshotOf(host)).toEqual(before);
    // Many polls later one line tells of each.
    const waits = (await past(host)).filter(({ event }) => event === "ReleaseWaits");
    expect(waits.map(({ sequence, code }) => [sequence, code])).toEqual([
      [2, "WINDOW_CLOSED"],
      [3, "WINDOW_CLOSED"],
    ]);
    agent.child.kill("SIGKILL");
    await agent.ended;
    expect(await snapshotOf(host)).toEqual(before);
  });

  test("the service wakes up when the window opens, and not before", async () => {
    const { host, server } = await servedRelease(series, { ...SELDOM, ...CLOSED() });
    await serveUntil(host, "release 2 waits");
    const archiveReads = server.requests.filter(({ path }) => path.endsWith(".tar")).length;
    const opens = Math.ceil((Date.now() + 8_000) / 1_000) * 1_000;
    await reconfigure(host, windowIn(opens - Date.now()));
    await serveUntil(host, "release 2 is active");
    const { at } = await lastOf(host, "BaselineRecorded");
    expect(Date.parse(at)).toBeGreaterThanOrEqual(opens);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
    // It had everything.
    expect(server.requests.filter(({ path }) => path.endsWith(".tar"))).toHaveLength(archiveReads);
    expect(await rootsOf(host)).toEqual({
      current: series.toplevels[2],
      previous: series.toplevels[1],
    });
  });

  test("a person's apply does not wait; check tells of the window", async () => {
    const { host } = await servedRelease(series, CLOSED());
    const checked = await host.run("check");
    expect(checked.stdout).toMatch(
      /^Nothing to do yet: release 2 .* window opens .*\d\d:\d\d \(in /,
    );
    expect(checked.exitCode).toBe(0);
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, updated: true });
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
  });

  test("what was fetched and then lost is fetched again", async () => {
    const { host } = await servedRelease(series, { ...SELDOM, ...CLOSED() });
    await serveUntil(host, "release 2 waits");
    const root = join(host.root, "nix/var/nix/gcroots/nixos-pull/pending");
    await rm(root);
    const deleted = await runProcess(
      "nix-store",
      ["--store", `local?root=${host.root}`, "--delete", series.toplevels[2]],
      { env: testEnvironment(), timeoutMs: 300_000 },
    );
    expect(deleted.exitCode, deleted.stderr).toBe(0);
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, updated: true });
    expect(await host.switchLog()).toEqual(runsOf(series.toplevels[1], series.toplevels[2]));
  });
});

describe("a held host", () => {
  test("fetches and activates nothing for anyone, until it is released", async () => {
    const { host, server } = await servedRelease(series);
    const before = await snapshotOf(host);
    const held = await host.run("hold", "--reason", "the fair is open");
    expect(held.stdout).toMatch(/^This host is held since \d\d:\d\d: the fair is open$/m);
    const applied = await host.run("apply");
    expect(applied.exitCode).toBe(11);
    expect(applied.stdout).toMatch(/held since .*: the fair is open; `nixos-pull unhold` ends/);
    expect(await answerOf(host, "apply", "--again")).toMatchObject({ decision: "waiting" });
    expect(await snapshotOf(host)).toEqual(before);
    expect(server.requests.filter(({ path }) => path.endsWith(".tar"))).toEqual([]);
    expect(await rootsOf(host)).not.toHaveProperty("pending");
    const checked = await host.run("check");
    expect(checked.stdout).toContain("HELD: this host is held since");
    const status = await statusOf(host);
    expect(status.hold).toMatchObject({ kind: "held", hold: { reason: "the fair is open" } });
    expect(status.lastPoll).toMatchObject({
      decision: "waiting",
      release: { sequence: 2 },
    });
    expect(await reportOf(host)).toMatchObject({
      hold: { until: null, reason: "the fair is open" },
      waits: [{ reason: "HELD", until: null }],
    });
    expect((await host.run("status")).stdout).toMatch(
      /^○ release 2 waits: HELD: this host is held since \d\d:\d\d: the fair is open; `nixos-pull unhold` ends that$/m,
    );

    expect((await host.run("unhold")).stdout).toBe("This host is no longer held.\n");
    expect((await host.run("unhold")).stdout).toBe("This host was not held.\n");
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, updated: true });
    expect((await past(host)).map(({ event }) => event)).toEqual(
      expect.arrayContaining(["Held", "ReleaseWaits", "HoldEnded"]),
    );
    expect(await reportOf(host)).not.toHaveProperty("hold");
  });

  test("goes on by itself when its hold ends", async () => {
    const { host } = await servedRelease(series, SELDOM);
    const { stdout } = await host.run("hold", "--for", "8s", "--utc");
    const until = / until (\S+Z)$/m.exec(stdout)?.[1] ?? "";
    await serveUntil(host, "release 2 is active");
    const { at } = await lastOf(host, "BaselineRecorded");
    expect(Date.parse(at)).toBeGreaterThanOrEqual(Date.parse(until));
    expect((await statusOf(host)).hold).toEqual({ kind: "none" });
  });

  test("wakes its service when it is held and when that ends, however seldom it polls", async () => {
    const { host, mirror } = await servedRelease(series, SELDOM);
    const agent = host.start("run");
    await agent.sees("release 2 is active");
    await mirror.release(3);
    expect((await host.run("hold")).exitCode).toBe(0);
    await agent.sees("release 3 waits: this host is held");
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
    expect((await host.run("unhold")).exitCode).toBe(0);
    await agent.sees("release 3 is active");
    await stop(agent);
  });

  test("was held in the middle of a download, which then is not activated", async () => {
    const { host, server, mirror } = await servedRelease(series);
    const before = await snapshotOf(host);
    const pause = interruptArchive(mirror.directory, 100_000, "wait");
    server.misbehave = pause.misbehave;
    const applying = host.start("apply");
    await pause.reached;
    expect((await host.run("hold")).exitCode).toBe(0);
    server.misbehave = honestly;
    pause.goOn();
    const { exitCode, stdout } = await applying.ended;
    expect(stdout).toContain("held since");
    expect(exitCode).toBe(11);
    expect(await snapshotOf(host)).toEqual(before);
    expect((await statusOf(host)).state.name).toBe("Imported");
  });

  test("stays held where the file of its hold is torn, with an alarm", async () => {
    const { host } = await servedRelease(series);
    await host.run("hold", "--for", "1s");
    const file = join(host.state, "hold.json");
    await writeFile(file, (await readFile(file, "utf8")).slice(0, 40));
    await vi.waitFor(async () => {
      const applied = await host.run("apply");
      expect(applied.exitCode).toBe(11);
      expect(applied.stderr).toMatch(/STATE_CORRUPT/);
    }, 120_000);
    expect(await host.profileToplevel()).toBe(series.toplevels[1]);
    const { alarms, hold } = await statusOf(host);
    expect(hold.kind).toBe("damaged");
    expect(alarms).toMatchObject([
      { code: "STATE_CORRUPT", message: expect.stringMatching(/held/) },
    ]);
    expect(await reportOf(host)).toMatchObject({ code: "STATE_CORRUPT", hold: { at: null } });
    await host.run("unhold");
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, updated: true });
  });

  test("may be held before it ever polled", async () => {
    const mirror = await series.mirror(1);
    const host = await createHost({ mirrors: [mirror.address], publicKeys: [series.publicKey] });
    await host.run("hold");
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 11, decision: "waiting" });
    await host.run("unhold");
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, updated: true });
    expect((await statusOf(host)).alarms).toEqual([]);
  });

  test.each([
    [["--until", "tomorrow"], "expected a time with its zone"],
    [["--until", "2020-01-01T00:00:00Z"], "expected a time after"],
    [["--for", "soon"], "expected a duration"],
    [["--for", "1h", "--until", "2099-01-01T00:00:00Z"], "found both"],
    [["--reason", "x".repeat(501)], "found 501"],
  ])("is not held by what is not understood: %j", async (args, words) => {
    const { host } = await servedRelease(series);
    const { exitCode, stderr } = await host.run("hold", ...args);
    expect(exitCode).toBe(2);
    expect(stderr).toContain(words);
    expect(await readdir(host.state)).not.toContain("hold.json");
  });
});

describe("a host that asks for a confirmation", () => {
  const CONFIRM = { activation: { confirm: "required" } };

  test("fetches a release and activates the one that was confirmed", async () => {
    const { host, mirror } = await servedRelease(series, { ...OFTEN, ...CONFIRM });
    const before = await snapshotOf(host);
    expect((await host.run("confirm")).stderr).toContain("NOTHING_TO_CONFIRM");
    const agent = host.start("run");
    await agent.sees("release 2 waits");
    expect(await waitsOf(host)).toEqual(["CONFIRMATION_MISSING"]);
    const wrong = await host.run("confirm", "3");
    expect(wrong.exitCode).toBe(8);
    expect(wrong.stderr).toMatch(/NOTHING_TO_CONFIRM: expected the release that waits, 2 /);
    expect(await snapshotOf(host)).toEqual(before);
    const digest = (await statusOf(host)).lastPoll.release?.digest ?? "";
    const confirmed = await host.run("confirm", digest.slice(0, 12));
    expect(confirmed.stdout).toMatch(/^Confirmed release 2: switch \w{7}-web1-2\n/);
    await agent.sees("release 2 is active");
    // That was no word about the next one.
    await mirror.release(3);
    await agent.sees("release 3 waits");
    await stop(agent);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, updated: true });
    expect(await lastOf(host, "ReleaseConfirmed")).toMatchObject({ sequence: 2 });
  });

  test("hears the confirmation at once, however seldom it polls", async () => {
    const { host } = await servedRelease(series, { ...SELDOM, ...CONFIRM });
    const agent = host.start("run");
    await agent.sees("release 2 waits");
    const confirmed = await host.run("confirm");
    expect(confirmed.stdout).toContain("The service activates it now, if it runs.");
    await agent.sees("release 2 is active");
    await stop(agent);
  });

  test("and one that asks for none has nothing to confirm", async () => {
    const { host } = await servedRelease(series);
    const { exitCode, stderr } = await host.run("confirm");
    expect(exitCode).toBe(8);
    expect(stderr).toContain("activation.confirm is none");
  });
});

/** A hook that notes what it is told, then goes on in shell. */
function hook(host: SandboxHost, then = "exit 0"): string[] {
  const log = join(host.root, "hooks.log");
  const script = `env | grep ^NIXOS_PULL_ | sort | tr '\\n' ' ' >> ${log}; echo >> ${log}; ${then}`;
  return ["/bin/sh", "-c", script];
}

async function hooksRun(host: SandboxHost): Promise<Record<string, string>[]> {
  const text = await readFile(join(host.root, "hooks.log"), "utf8").catch(() => "");
  return text
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) =>
      Object.fromEntries(
        line
          .trim()
          .split(" ")
          .map((pair) => pair.replace("NIXOS_PULL_", "").split("=", 2) as [string, string]),
      ),
    );
}

describe("hooks", () => {
  test("run around an activation and are told what it is", async () => {
    const { host } = await servedRelease(series);
    await reconfigure(host, { hooks: { preActivate: hook(host), postCommit: hook(host) } });
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, updated: true });
    const told = {
      ...{ CHANNEL: "stable", RELEASE: "2", MODE: "switch", CODE: "", MESSAGE: "" },
      HOSTNAME: "web1",
      ...{ TOPLEVEL: series.toplevels[2], PREVIOUS: series.toplevels[1] },
      DIGEST: expect.stringMatching(/^[0-9a-f]{64}$/),
    };
    expect(await hooksRun(host)).toEqual([
      { ...told, HOOK: "preActivate", RESULT: "" },
      { ...told, HOOK: "postCommit", RESULT: "committed" },
    ]);
  });

  test.each([
    ["fails", "echo not now >&2; exit 3", /preActivate: .* exit code 3: not now$/],
    [
      "hangs, with a child that hangs too",
      "sleep 600 & wait",
      /preActivate: .* did not finish within/,
    ],
    ["is not there", null, /preActivate: expected the program \/no\/such\/program/],
  ])("one that %s delays the release, and the host is untouched", async (_, script, words) => {
    const { host } = await servedRelease(series);
    const before = await snapshotOf(host);
    const preActivate = script === null ? ["/no/such/program"] : hook(host, script);
    await reconfigure(host, { hooks: { preActivate, timeout: "1s" } });
    expect(await answerOf(host, "apply")).toMatchObject({
      exitCode: 7,
      error: { code: "HOOK_FAILED", message: expect.stringMatching(words) },
    });
    expect(await snapshotOf(host)).toEqual(before);
    expect((await statusOf(host)).state).toMatchObject({
      ...{ name: "Failed", attempts: 1, reason: { code: "HOOK_FAILED" } },
    });
    expect(await answerOf(host, "check")).toMatchObject({ decision: "backoff" });
    // A hold pauses it, and the count of its attempts goes on.
    await host.run("hold");
    expect(await answerOf(host, "apply")).toMatchObject({
      ...{ exitCode: 11, state: { name: "Failed", attempts: 1 } },
    });
    await host.run("unhold");
    await reconfigure(host, { hooks: { preActivate: ["/bin/sh", "-c", "exit 0"] } });
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, updated: true });
  });

  test("one that fails after the commit is a warning in the history", async () => {
    const { host } = await servedRelease(series);
    const postCommit = hook(host, "echo no pager >&2; exit 1");
    await reconfigure(host, { hooks: { postCommit } });
    const { exitCode, stderr } = await host.run("apply");
    expect(exitCode).toBe(0);
    expect(stderr).toContain("HOOK_FAILED");
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
    expect(await lastOf(host, "HookFailed")).toMatchObject({
      ...{ sequence: 2, code: "HOOK_FAILED", message: expect.stringContaining("no pager") },
    });
    expect((await statusOf(host)).state.name).toBe("Idle");
  });

  test("tell of a way back, by a failure or by hand", async () => {
    const { host, mirror } = await servedRelease(series);
    await reconfigure(host, { hooks: { postRollback: hook(host), postCommit: hook(host) } });
    await hookSwitches(host, 'if [ "$generation" = 2 ]; then exit 2; fi');
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 8 });
    await mirror.release(3);
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, updated: true });
    expect((await host.run("rollback", "--generation", "1")).exitCode).toBe(0);
    expect(await hooksRun(host)).toMatchObject([
      {
        ...{ HOOK: "postRollback", RESULT: "rolled-back", CODE: "ACTIVATION_FAILED", RELEASE: "2" },
        ...{ TOPLEVEL: series.toplevels[1], PREVIOUS: series.toplevels[2] },
      },
      { HOOK: "postCommit", RELEASE: "3", PREVIOUS: series.toplevels[1] },
      {
        ...{ HOOK: "postRollback", RESULT: "reverted", RELEASE: "", CODE: "" },
        ...{ TOPLEVEL: series.toplevels[1], PREVIOUS: series.toplevels[3] },
      },
    ]);
  });
});

describe("a host that was changed by hand", () => {
  const updated = async (settings: object): Promise<SandboxHost> => {
    const { host } = await servedRelease(series, { ...settings });
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, updated: true });
    await moveProfile(host, 1);
    return host;
  };

  test("is left alone by default, and says so", async () => {
    const host = await updated({});
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, decision: "drifted" });
    expect(await host.profileToplevel()).toBe(series.toplevels[1]);
    const drift = {
      ...{ what: "profile", expected: series.toplevels[2], found: series.toplevels[1] },
    };
    expect((await statusOf(host)).drift).toEqual(drift);
    expect((await reportOf(host))["drift"]).toEqual(drift);
    expect((await host.run("check")).stderr).toContain("changed by hand: the boot default is");
    expect((await host.run("status")).stdout).toMatch(
      /^○ web1 was changed by hand: the boot default is /m,
    );
  });

  test("becomes the release again where the policy is to revert, in a window", async () => {
    const host = await updated({ ...OFTEN, drift: "revert" });
    await reconfigure(host, CLOSED());
    await serveUntil(host, "release 2 waits");
    expect(await host.profileToplevel()).toBe(series.toplevels[1]);
    await reconfigure(host, { maintenance: { windows: [] } });
    await serveUntil(host, "release 2 is active");
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
    const { drift, lastPoll } = await statusOf(host);
    expect({ drift, waits: lastPoll.waits }).toEqual({ drift: null, waits: [] });
  });

  test("keeps the system that was chosen in the boot menu, whatever the policy", async () => {
    const { host } = await servedRelease(series, { drift: "revert" });
    await answerOf(host, "apply");
    for (const name of ["current-system", "booted-system"]) {
      await rm(join(host.root, "run", name), { force: true });
      await symlink(series.toplevels[1], join(host.root, "run", name));
    }
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, decision: "drifted" });
    expect((await statusOf(host)).drift).toMatchObject({
      what: "booted",
      found: series.toplevels[1],
    });
    expect(await answerOf(host, "apply", "--again")).toMatchObject({ exitCode: 0, updated: true });
  });
});
