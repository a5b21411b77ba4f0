import { appendFile, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { savedRecordSchema } from "../../agent/core/update/record.ts";
import type { State } from "../../agent/core/update/states.ts";
import { readChecked } from "../../agent/effects/files/checked-file.ts";
import { History } from "../../agent/effects/state/history.ts";
import { runProcess } from "../../agent/effects/process/subprocess.ts";
import { honestly, servedRelease, type Target } from "../support/attack.ts";
import { rootsOf } from "../support/host-snapshot.ts";
import {
  archiveAnswers,
  interruptArchive,
  manifestStatus,
  neverAnswers,
  parseRange,
  whenAsked,
} from "../support/misbehaviours.ts";
import type { MirrorServer } from "../support/mirror-server.ts";
import { startCommand, testEnvironment, type RunningCommand } from "../support/nixos-pull.ts";
import { pathWith } from "../support/program-path.ts";
import { PAYLOAD_BYTES, publishReleases, type ReleaseSeries } from "../support/release-series.ts";
import type { SandboxHost } from "../support/sandbox.ts";
import { hookSwitches, runsOf } from "../support/scripted-system.ts";
import { suiteDirectory } from "../support/suite-directory.ts";

const directory = suiteDirectory();
let series: ReleaseSeries;
beforeAll(async () => {
  series = await publishReleases(directory);
});

const OFTEN = { poll: { interval: "1s", jitter: "0s" } };
const SELDOM = { poll: { interval: "1d", jitter: "0s" } };
/** An agent that was told to stop has to be gone within this. */
const STOP_MS = 60_000;

function run(host: SandboxHost, env: Record<string, string> = {}): RunningCommand {
  return startCommand(["run", "--config", host.configFile], env);
}

/** Sends SIGTERM and expects an orderly end in bounded time. */
async function stop(agent: RunningCommand): Promise<void> {
  const asked = performance.now();
  agent.child.kill("SIGTERM");
  const { exitCode, stderr } = await agent.ended;
  expect(exitCode, stderr).toBe(0);
  expect(performance.now() - asked).toBeLessThan(STOP_MS);
  expect(stderr).toMatch(/stopped("\})?\n$/);
  expect(stderr).not.toMatch(/\berror\b.*INTERRUPTED|INTERNAL/);
}

async function killHard(agent: RunningCommand): Promise<void> {
  agent.child.kill("SIGKILL");
  await agent.ended;
}

async function stateOf(host: SandboxHost): Promise<State> {
  const read = await readChecked(join(host.state, "state.json"), savedRecordSchema);
  if (read.kind !== "read") throw new Error(`the state is ${read.kind}`);
  return read.value.state;
}

/** The agent, started again, brings release 2 to its end, and nothing is left of the accident. */
async function expectFinished(host: SandboxHost): Promise<void> {
  const next = run(host);
  await next.sees("release 2 is active");
  await stop(next);
  expect(await host.profileToplevel()).toBe(series.toplevels[2]);
  expect(await rootsOf(host)).toEqual({
    current: series.toplevels[2],
    previous: series.toplevels[1],
  });
  expect(await host.stagingIsClean()).toBe(true);
  expect(await stateOf(host)).toEqual({ name: "Idle" });
  const past = await new History(host.state).read();
  const confirmed = past.filter(
    ({ event, sequence }) => event === "BootDefaultSet" && sequence === 2,
  );
  expect(confirmed).toHaveLength(1);
  expect(past.map(({ event }) => event)).not.toContain("ActivationRejected");
  const generations = await readdir(join(host.root, "nix/var/nix/profiles"));
  expect(generations.sort()).toEqual(["per-user", "system", "system-1-link", "system-2-link"]);
  expect((await host.switchLog()).at(-1)).toBe(`boot ${series.toplevels[2]}`);
}

function manifestReads({ requests }: MirrorServer): number[] {
  return requests.filter(({ path }) => path.endsWith("/manifest.json")).map(({ status }) => status);
}

/** Bytes of archives that were asked for since `from`. */
function archiveBytes({ requests }: MirrorServer, from: number): number {
  const ranges = requests.slice(from).flatMap(({ range }) => parseRange(range) ?? []);
  return ranges.reduce((sum, range) => sum + range.to + 1 - range.from, 0);
}

describe("the agent as a service", () => {
  test.each([
    ["an interval", OFTEN],
    ["a cron expression with seconds", { poll: { cron: "* * * * * *", jitter: "0s" } }],
  ])(
    "follows %s, applies two releases in turn and is answered 304 between them",
    async (_, poll) => {
      const { mirror, server, host } = await servedRelease(series, poll);
      const agent = run(host);
      await agent.sees("release 2 is active");
      await vi.waitFor(() => {
        expect(manifestReads(server).slice(1, 3)).toEqual([304, 304]);
      }, 120_000);
      await mirror.release(3);
      await agent.sees("release 3 is active");
      await vi.waitFor(() => {
        expect(manifestReads(server).at(-1)).toBe(304);
      }, 120_000);
      await stop(agent);
      expect(manifestReads(server).filter((status) => status === 200)).toHaveLength(2);
      expect(await host.switchLog()).toEqual(
        runsOf(series.toplevels[1], series.toplevels[2], series.toplevels[3]),
      );
    },
  );

  test("begins a poll of a second cron expression not before its time", async () => {
    const { server, host } = await servedRelease(series, {
      poll: { cron: "0 0 4 1 1 *", jitter: "0s" },
    });
    const agent = run(host);
    await agent.sees("release 2 is active");
    await stop(agent);
    // The second one comes after the fetch, the third one from the health gate.
    expect(manifestReads(server)).toEqual([200, 304, 304]);
  });

  test("refuses a cron expression whose day never comes", async () => {
    const { host } = await servedRelease(series, { poll: { cron: "0 0 31 2 *" } });
    const { exitCode, stderr } = await run(host).ended;
    expect(exitCode, stderr).toBe(3);
    expect(stderr).toMatch(/CONFIG_INVALID: .*poll\.cron/);
  });

  test("outlives a mirror that is away, then one that breaks off, by itself", async () => {
    const { server, host } = await servedRelease(series, { ...OFTEN, limits: { retryBase: "1s" } });
    server.misbehave = manifestStatus(503);
    const agent = run(host);
    await agent.sees("MIRROR_STATUS");
    server.misbehave = archiveAnswers((request) => request.socket.destroy());
    await agent.sees("MIRROR_UNREACHABLE");
    server.misbehave = honestly;
    await agent.sees("release 2 is active");
    await stop(agent);
  });

  test("says once that a release is denied here, and stays at work", async () => {
    const { mirror, host } = await servedRelease(series, OFTEN);
    await hookSwitches(host, "if [ $generation = 2 ]; then exit 4; fi");
    const agent = run(host);
    await agent.sees("release 2 was rolled back");
    await agent.sees("RELEASE_DENIED");
    await mirror.release(3);
    await agent.sees("release 3 is active");
    await stop(agent);
  });

  test("ends to be started anew when its configuration has changed", async () => {
    const { host } = await servedRelease(series, OFTEN);
    const agent = run(host);
    await agent.sees("release 2 is active");
    await appendFile(host.configFile, "\n");
    const { exitCode, stderr } = await agent.ended;
    expect(exitCode, stderr).toBe(0);
    expect(stderr).toContain("another agent or configuration");
  });
});

/** `nix copy` that tells when it begins, and then does what the script says. */
async function tellingNix(
  host: SandboxHost,
  then: string,
): Promise<{ PATH: string; begun: () => Promise<string> }> {
  const fifo = join(host.root, "nix-copy-begun");
  await runProcess("mkfifo", [fifo], { env: testEnvironment(), timeoutMs: 60_000 });
  const script = `echo $$ > ${fifo}\n${then}`;
  const PATH = await pathWith(["flock", "sync", "nix-store", "nix-env"], { nix: script });
  return { PATH, begun: () => readFile(fifo, "utf8") };
}

/** Makes the first run of generation 2 wait until the function that it gives is called. */
async function gateSwitches(host: SandboxHost, first = ""): Promise<() => Promise<void>> {
  const gate = join(host.root, "gate");
  await runProcess("mkfifo", [gate], { env: testEnvironment(), timeoutMs: 60_000 });
  await hookSwitches(
    host,
    `${first}\nif [ "$generation $mode" = "2 test" ]; then echo waiting; read line < "$root/gate"; fi`,
  );
  return () => writeFile(gate, "go\n");
}

const isPart = (name: string): boolean => name.endsWith(".part");

describe("SIGTERM ends the agent in order", () => {
  test("while it is idle", async () => {
    const { host } = await servedRelease(series, SELDOM);
    const agent = run(host);
    await agent.sees("release 2 is active");
    await stop(agent);
  });

  test("while a mirror lets it wait", async () => {
    const { server, host } = await servedRelease(series, SELDOM);
    server.misbehave = neverAnswers;
    const asked = whenAsked(server, "/manifest.json");
    const agent = run(host);
    await asked;
    await stop(agent);
    server.misbehave = honestly;
    await expectFinished(host);
  });

  test("while it downloads, and the next start goes on there", async () => {
    const { mirror, server, host } = await servedRelease(series, SELDOM);
    const { reached, misbehave } = interruptArchive(mirror.directory, PAYLOAD_BYTES / 2, "wait");
    server.misbehave = misbehave;
    const agent = run(host);
    await reached;
    // What is on disk is what can be resumed; it is written by the mebibyte.
    await vi.waitFor(async () => {
      const [part] = (await readdir(host.staging, { recursive: true })).filter(isPart);
      expect((await stat(join(host.staging, part ?? ""))).size).toBeGreaterThan(1_000_000);
    }, 120_000);
    await stop(agent);
    server.misbehave = honestly;
    const from = server.requests.length;
    await expectFinished(host);
    expect(archiveBytes(server, from)).toBeLessThan(PAYLOAD_BYTES * 0.7);
  });

  test("while nix copy runs, and nothing is downloaded again", async () => {
    const { server, host } = await servedRelease(series, SELDOM);
    const { PATH, begun } = await tellingNix(host, "exec sleep 600");
    const agent = run(host, { PATH });
    const pid = Number(await begun());
    await stop(agent);
    expect(() => process.kill(pid, 0)).toThrow("ESRCH");
    const from = server.requests.length;
    await expectFinished(host);
    expect(archiveBytes(server, from)).toBe(0);
  });

  test("while the switch runs, which is brought to its end and not run again", async () => {
    const { host } = await servedRelease(series, SELDOM);
    const open = await gateSwitches(host);
    const agent = run(host);
    await agent.sees("waiting");
    agent.child.kill("SIGTERM");
    await open();
    const { exitCode, stderr } = await agent.ended;
    expect(exitCode, stderr).toBe(0);
    expect(await stateOf(host)).toMatchObject({ name: "Verifying" });
    await expectFinished(host);
    expect(await host.switchLog()).toEqual(runsOf(series.toplevels[1], series.toplevels[2]));
  });
});

describe("kill -9 leaves a host that the next start brings to the release:", () => {
  /** Runs the agent until it is dead. */
  type Accident = (target: Target & { server: MirrorServer }) => Promise<void>;

  /** A program of Nix that kills the agent that called it, before or after its own work. */
  const killedAt =
    (program: string, call: string, when: "before" | "after"): Accident =>
    async ({ host }) => {
      const others = ["nix", "nix-store", "nix-env"].filter((name) => name !== program);
      const script =
        when === "before"
          ? `case "$*" in ${call}) kill -9 $PPID;; esac\nexec ${program} "$@"`
          : `${program} "$@" || exit\ncase "$*" in ${call}) kill -9 $PPID;; esac`;
      const PATH = await pathWith(["flock", "sync", ...others], { [program]: script });
      const { exitCode } = await run(host, { PATH }).ended;
      expect(exitCode).toBeNull();
    };

  const killedInSwitch =
    (script: string): Accident =>
    async ({ host }) => {
      await hookSwitches(host, `if [ $generation = 2 ]; then ${script}; fi`);
      const { exitCode } = await run(host).ended;
      expect(exitCode).toBeNull();
      await hookSwitches(host, "");
    };

  const ACCIDENTS: readonly [string, Accident][] = [
    [
      "while it waits for a mirror",
      async ({ server, host }) => {
        server.misbehave = neverAnswers;
        const asked = whenAsked(server, "/manifest.json");
        const agent = run(host);
        await asked;
        await killHard(agent);
      },
    ],
    [
      "while it downloads",
      async ({ mirror, server, host }) => {
        const interruption = interruptArchive(mirror.directory, PAYLOAD_BYTES / 2, "wait");
        server.misbehave = interruption.misbehave;
        const agent = run(host);
        await interruption.reached;
        await killHard(agent);
      },
    ],
    ["before it asks the store", killedAt("nix-store", "*--check-validity*", "before")],
    ["while nix copy begins, which goes on alone", killedAt("nix", "copy*", "before")],
    ["after nix copy", killedAt("nix", "copy*", "after")],
    [
      "together with nix copy",
      async ({ host }) => {
        const { PATH, begun } = await tellingNix(host, "exec sleep 600");
        const agent = run(host, { PATH });
        const pid = Number(await begun());
        await killHard(agent);
        process.kill(pid, "SIGKILL");
      },
    ],
    ["while nix-env begins, which goes on alone", killedAt("nix-env", "*--set*", "before")],
    ["after nix-env", killedAt("nix-env", "*--set*", "after")],
    ["while the switch begins, which goes on alone", killedInSwitch("kill -9 $PPID")],
    ["together with the switch", killedInSwitch("kill -9 $PPID $$")],
    [
      "together with the switch, half done",
      killedInSwitch('ln -sfn $out "$root/run/current-system"; kill -9 $PPID $$'),
    ],
  ];

  test.each(ACCIDENTS)("%s", async (_, accident) => {
    const target = await servedRelease(series, SELDOM);
    await accident(target);
    target.server.misbehave = honestly;
    await expectFinished(target.host);
    expect((await target.host.switchLog()).length).toBeLessThanOrEqual(5);
  });
});

describe("the agent's log", () => {
  async function logOf(
    settings: Record<string, unknown>,
    env: Record<string, string> = {},
  ): Promise<string[]> {
    const { host } = await servedRelease(series, { ...SELDOM, ...settings });
    await hookSwitches(host, "printf 'two\\nlines \\033[31mred\\033[0m\\n'");
    const agent = run(host, env);
    await agent.sees("release 2 is active");
    await stop(agent);
    return agent.stderr().trimEnd().split("\n");
  }
  const TIME = /\d\d:\d\d:\d\d/;

  test.each(["auto", "text"])(
    "has priorities and no time of its own in the journal (%s)",
    async (format) => {
      const lines = await logOf({ log: { format } }, { JOURNAL_STREAM: "8:12345" });
      for (const line of lines) expect(line).toMatch(/^<[3-7]>[^<]/);
      expect(lines.filter((line) => TIME.test(line))).toEqual([]);
    },
  );

  test("has one time in each line of text elsewhere", async () => {
    const lines = await logOf({ log: { format: "text" } });
    for (const line of lines) {
      expect(line).toMatch(/^\d\d:\d\d:\d\d (debug|info|warn|error)/);
      expect(line.match(new RegExp(TIME, "g"))).toHaveLength(1);
    }
  });

  test.each([
    ["json", { JOURNAL_STREAM: "8:12345" }],
    ["auto", {}],
  ])("is JSON where it should be (%s)", async (format, env) => {
    const lines = await logOf({ log: { format, level: "debug" } }, env);
    const entries = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    for (const entry of entries) {
      expect(entry["level"]).toMatch(/^(debug|info|warn|error)$/);
      expect(Date.parse(String(entry["time"]))).toBeGreaterThan(0);
      expect(entry["msg"]).toEqual(expect.any(String));
    }
    expect(entries.map(({ event }) => event)).toContain("BootDefaultSet");
  });

  test("has each line of the switch as one line, without control characters", async () => {
    const lines = await logOf({ log: { format: "text" } });
    const said = lines.filter((line) => line.includes("[switch-to-configuration]"));
    expect(said.map((line) => line.split("] ")[1])).toEqual(
      ["test", "boot"].flatMap((mode) => [
        `switching to generation 2 of web1: ${mode}`,
        "two",
        "lines  [31mred [0m",
      ]),
    );
  });
});
