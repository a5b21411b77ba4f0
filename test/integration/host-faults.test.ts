import {
  mkdir,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  statfs,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { runProcess } from "../../agent/effects/process/subprocess.ts";
import { answerOf, jsonOf, type Answer } from "../support/answer.ts";
import { honestly, servedRelease } from "../support/attack.ts";
import { rootsOf, snapshotOf } from "../support/host-snapshot.ts";
import { interruptArchive } from "../support/misbehaviours.ts";
import { nixosPull, testEnvironment, type CommandOutput } from "../support/nixos-pull.ts";
import { pathWith } from "../support/program-path.ts";
import { PAYLOAD_BYTES, publishReleases, type ReleaseSeries } from "../support/release-series.ts";
import { runNix } from "../support/real-nix.ts";
import { createHost, type SandboxHost } from "../support/sandbox.ts";
import {
  moveToTmpfs,
  mountReadOnly,
  mountTmpfs,
  resize,
  unmount,
  whyNoMounts,
} from "../support/scratch-mount.ts";
import { hookSwitches, runsOf } from "../support/scripted-system.ts";
import { suiteDirectory } from "../support/suite-directory.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const directory = suiteDirectory();
let series: ReleaseSeries;
beforeAll(async () => {
  series = await publishReleases(directory);
});

const noMounts = whyNoMounts();
const mounted = noMounts === null ? "" : ` (skipped: ${noMounts})`;

/** The last step of every case: with the fault gone, the same host takes the release. */
async function expectRecovery(host: SandboxHost, sequence: 2 | 3 = 2): Promise<void> {
  const updated = await host.run("apply");
  expect(updated.exitCode, updated.stderr).toBe(0);
  expect(await host.profileToplevel()).toBe(series.toplevels[sequence]);
  expect(await archivesIn(host.staging)).toEqual([]);
}

async function archivesIn(staging: string): Promise<string[]> {
  const names = await readdir(staging).catch(() => []);
  return names.filter((name) => /^[0-9a-f]{64}$/.test(name));
}

/** Takes the space that a file system has left, but for some KiB; gives the file that does. */
async function fill(path: string, left = 0): Promise<string> {
  const filler = join(path, "filler");
  await runProcess("dd", ["if=/dev/zero", `of=${filler}`, "bs=4k"], {
    env: testEnvironment(),
    timeoutMs: 240_000,
  });
  await truncate(filler, (await stat(filler)).size - left * 1024);
  return filler;
}

describe.skipIf(noMounts !== null)(`a disk that is full${mounted}`, () => {
  // Nix keeps 8 MB of every store in reserve.
  test.each([
    ["staging", "1m", (host: SandboxHost) => host.staging],
    ["the store", "10m", (host: SandboxHost) => join(host.root, "nix")],
  ])("for %s is seen before anything is downloaded", async (what, size, place) => {
    const { server, host } = await servedRelease(series);
    await mkdir(place(host), { recursive: true });
    await moveToTmpfs(place(host), size);
    const before = await snapshotOf(host);
    const checked = await answerOf(host, "check");
    expect(checked).toMatchObject({ exitCode: 7, error: { code: "DISK_FULL" } });
    const refused = await answerOf(host, "apply");
    expect(refused).toMatchObject({ exitCode: 7, updated: false, error: { code: "DISK_FULL" } });
    expect(refused.error?.message).toContain(what);
    // Twice the index, and no NAR.
    expect(server.requests.filter(({ path }) => path.startsWith("/archives/"))).toHaveLength(2);
    expect(await snapshotOf(host)).toEqual(before);
    expect(await archivesIn(host.staging)).toEqual([]);

    resize(place(host), "32m");
    await expectRecovery(host);
  });

  test.each([
    ["the state directory", (host: SandboxHost) => host.state],
    ["the store", (host: SandboxHost) => join(host.root, "nix")],
  ])("so that %s has no inodes is seen before anything is downloaded", async (what, place) => {
    const { server, host } = await servedRelease(series);
    await moveToTmpfs(place(host), "32m");
    const { files, ffree } = await statfs(place(host));
    resize(place(host), `32m,nr_inodes=${files - ffree + 2}`);
    const before = await snapshotOf(host);
    const checked = await answerOf(host, "check");
    expect(checked).toMatchObject({ exitCode: 7, error: { code: "DISK_FULL" } });
    expect(checked.error?.message).toMatch(/expected \d+ free inodes/);
    expect(checked.error?.message).toContain(what);
    expect(await snapshotOf(host)).toEqual(before);
    expect(server.requests.filter(({ path }) => path.startsWith("/archives/"))).toHaveLength(1);

    resize(place(host), "32m,nr_inodes=10000");
    await expectRecovery(host);
  });

  test("of the store makes room by garbage, if the settings say so, and nothing else goes", async () => {
    const { host } = await servedRelease(series, { generations: { collect: "when-needed" } });
    const place = join(host.root, "nix");
    await moveToTmpfs(place, "64m");
    const store = ["--store", `local?root=${host.root}`];
    const garbage = join(host.root, "garbage");
    await writeFile(garbage, Buffer.alloc(30 * 1024 * 1024, 7));
    const path = runNix("nix-store", [...store, "--add", garbage]).trim();
    const { bsize, blocks, bfree } = await statfs(place);
    // Not enough for the release beside it. Nix keeps 8 MB of every store in reserve.
    resize(place, `${Math.ceil(((blocks - bfree) * bsize) / 1024) + 512}k`);
    const checked = await host.run("check");
    expect(checked.stdout).toContain("garbage would be collected first (generations.collect)");
    const updated = await host.run("apply");
    expect(updated.exitCode, updated.stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
    expect(runNix("nix-store", [...store, "--check-validity", "--print-invalid", path])).toContain(
      path,
    );
    // The old system is the way back.
    runNix("nix-store", [...store, "--verify-path", series.toplevels[1]]);
    expect((await host.run("history")).stdout).toMatch(
      /garbage was collected|of garbage were collected/,
    );
  });

  test("so that not even a directory can be made is called by its name", async () => {
    const { host } = await servedRelease(series);
    await mkdir(join(host.root, "small"));
    await moveToTmpfs(join(host.root, "small"), "1m,nr_inodes=1");
    const config = JSON.parse(await readFile(host.configFile, "utf8")) as {
      paths: Record<string, string>;
    };
    config.paths["staging"] = join(host.root, "small/staging");
    await writeFile(host.configFile, JSON.stringify(config));
    const refused = await answerOf(host, "apply");
    expect(refused).toMatchObject({ exitCode: 7, error: { code: "DISK_FULL" } });
    expect(refused.error?.message).toContain("ENOSPC");
  });

  /** A disk that fills up while the archive comes in, but for `left` KiB. */
  async function applyWhileFilling(
    place: (host: SandboxHost) => string,
    left: number,
  ): Promise<void> {
    const { mirror, server, host } = await servedRelease(series);
    await mkdir(place(host), { recursive: true });
    await moveToTmpfs(place(host), "16m");
    const before = await snapshotOf(host);
    const interruption = interruptArchive(mirror.directory, PAYLOAD_BYTES / 2, "wait");
    server.misbehave = interruption.misbehave;
    const applying = host.start("apply", "--json");
    await interruption.reached;
    const filler = await fill(place(host), left);
    interruption.goOn();
    const { exitCode, stdout, stderr } = await applying.ended;
    const { error } = JSON.parse(stdout) as Answer;
    expect(`${error?.code}: ${error?.message}`, stderr).toMatch(/^DISK_FULL: /);
    expect(exitCode).toBe(7);
    expect(await snapshotOf(host)).toEqual(before);
    expect(await archivesIn(host.staging)).toEqual([]);

    await rm(filler);
    server.misbehave = honestly;
    await expectRecovery(host);
  }
  const staging = (host: SandboxHost): string => host.staging;
  const store = (host: SandboxHost): string => join(host.root, "nix");

  test("in the middle, for staging, leaves the old system and no rubbish", () =>
    applyWhileFilling(staging, 0));
  test("in the middle, for the store, leaves the old system and no rubbish", () =>
    applyWhileFilling(store, 1024));

  // With no byte left, SQLite only says "disk I/O error".
  test("in the middle, to the last byte of the store, is called by its name", () =>
    applyWhileFilling(store, 0));

  test("for the state leaves the host as it is", async () => {
    const { host } = await servedRelease(series);
    await moveToTmpfs(host.state, "64k");
    const before = await snapshotOf(host);
    const filler = await fill(host.state);
    const refused = await host.run("apply");
    expect(refused.stderr).toContain("DISK_FULL");
    expect(refused.exitCode).toBe(7);
    expect(await snapshotOf(host)).toEqual(before);

    await rm(filler);
    resize(host.state, "32m");
    await expectRecovery(host);
  });

  test("of a reserve is not touched", async () => {
    const { host } = await servedRelease(series, { limits: { reserveBytes: 2 ** 50 } });
    const before = await snapshotOf(host);
    const refused = await answerOf(host, "apply");
    expect(refused).toMatchObject({ exitCode: 7, error: { code: "DISK_FULL" } });
    expect(refused.error?.message).toContain(`${2 ** 50} left over`);
    expect(await snapshotOf(host)).toEqual(before);
  });

  test("that holds nothing but staging is no hindrance", async () => {
    const { host } = await servedRelease(series);
    await mountTmpfs(host.staging, "16m");
    await expectRecovery(host);
  });
});

describe("a program that", () => {
  const NIX = ["nix", "nix-store", "nix-env"];

  test.each<{
    name: string;
    programs: string[];
    scripts?: Record<string, string>;
    code: string;
    settings?: Record<string, unknown>;
    staging?: "kept";
    /** Whether it is met only once the system is proven, and that has to be undone. */
    committing?: true;
  }>([
    { name: "is missing (nix-store)", programs: ["flock"], code: "TOOL_MISSING" },
    {
      name: "is missing once everything is downloaded (nix)",
      programs: ["flock", "nix-store", "nix-env"],
      code: "TOOL_MISSING",
      staging: "kept",
    },
    {
      name: "is missing once everything is in the store (sync)",
      programs: ["flock", ...NIX],
      code: "TOOL_MISSING",
    },
    {
      name: "is missing once everything is imported (nix-env)",
      programs: ["flock", "sync", "nix", "nix-store"],
      code: "TOOL_MISSING",
      committing: true,
    },
    {
      name: "hangs (nix copy)",
      programs: ["flock", "nix-store", "nix-env"],
      scripts: { nix: "sleep 300" },
      code: "TOOL_TIMEOUT",
      settings: { limits: { importTimeout: "1s" } },
      staging: "kept",
    },
    {
      name: "crashes (nix copy)",
      programs: ["flock", "nix-store", "nix-env"],
      scripts: { nix: "kill -SEGV $$" },
      code: "IMPORT_FAILED",
    },
    {
      name: "fails (nix-store)",
      programs: ["flock", "nix", "nix-env"],
      scripts: { "nix-store": 'echo "error: the store is on holiday" >&2; exit 1' },
      code: "IO_FAILED",
    },
    {
      name: "sets the profile and then fails (nix-env)",
      programs: ["flock", "sync", "nix", "nix-store"],
      scripts: {
        "nix-env": 'case "$*" in *--set*) nix-env "$@" && exit 1;; *) exec nix-env "$@";; esac',
      },
      code: "PROFILE_FAILED",
      committing: true,
    },
  ])("$name: $code", async ({ programs, scripts, code, settings, staging, committing }) => {
    const { server, host } = await servedRelease(series, settings);
    const PATH = await pathWith(programs, scripts);
    const before = await snapshotOf(host);
    const { exitCode, stdout, stderr } = await applyIn(host, { PATH });
    expect((JSON.parse(stdout) as Answer).error?.code, stderr).toBe(code);
    expect(exitCode).toBe(code === "IMPORT_FAILED" ? 6 : 7);
    const { 1: first, 2: second } = series.toplevels;
    const undone = committing ? [`test ${second}`, `switch ${first}`] : [];
    const switchLog = [...before.switchLog, ...undone];
    expect(await snapshotOf(host)).toEqual({ ...before, switchLog });
    expect(await archivesIn(host.staging)).toHaveLength(staging === "kept" ? 1 : 0);

    const asked = server.requests.length;
    await expectRecovery(host);
    const again = server.requests.slice(asked).filter(({ path }) => path.startsWith("/archives/"));
    // What was staged is not downloaded again, the index neither.
    if (staging === "kept") expect(again).toEqual([]);
  });

  test("is missing (flock) is named", async () => {
    const { host } = await servedRelease(series);
    const refused = await applyIn(host, { PATH: await pathWith(NIX) });
    expect(refused.stderr).toMatch(/TOOL_MISSING: .*flock/);
    expect(refused.exitCode).toBe(7);
  });

  const applyIn = (host: SandboxHost, env: Record<string, string>): Promise<CommandOutput> =>
    nixosPull(["apply", "--json", "--config", host.configFile], env);
});

describe("a place that cannot be written", () => {
  test.skipIf(noMounts !== null)(`is the profile's directory${mounted}`, async () => {
    const { host } = await servedRelease(series);
    const profiles = join(host.root, "nix/var/nix/profiles");
    mountReadOnly(profiles);
    const before = await snapshotOf(host);
    const refused = await answerOf(host, "apply");
    expect(refused).toMatchObject({ exitCode: 7, error: { code: "PERMISSION_DENIED" } });
    expect(await snapshotOf(host)).toEqual(before);
    unmount(profiles);
    await expectRecovery(host);
  });

  test("is a profile below a file", async () => {
    const { mirror } = await servedRelease(series);
    const file = join(await temporaryDirectory(), "file");
    await writeFile(file, "");
    const paths = { profile: join(file, "system") };
    const host = await series.host({ mirrors: [mirror.address], paths });
    const before = await snapshotOf(host);
    const refused = await answerOf(host, "apply");
    expect(refused).toMatchObject({ exitCode: 7, error: { code: "PROFILE_FAILED" } });
    const { 1: first, 2: second } = series.toplevels;
    const switchLog = [...before.switchLog, `test ${second}`, `test ${first}`];
    expect(await snapshotOf(host)).toEqual({ ...before, switchLog });
  });

  test.skipIf(noMounts !== null)(`is the state directory${mounted}`, async () => {
    const { host } = await servedRelease(series);
    const before = await snapshotOf(host);
    mountReadOnly(host.state);
    const refused = await host.run("apply");
    expect(refused.stderr).toContain("PERMISSION_DENIED");
    expect(refused.exitCode).toBe(7);
    expect(await snapshotOf(host)).toEqual(before);
    // What only reads works still.
    expect(await answerOf(host, "check")).toMatchObject({ exitCode: 0, decision: "update" });
    expect((await host.run("status")).exitCode).toBe(0);
    unmount(host.state);
    await expectRecovery(host);
  });

  test("is a state directory below a file", async () => {
    const { mirror } = await servedRelease(series);
    const file = join(await temporaryDirectory(), "file");
    await writeFile(file, "");
    const paths = { state: join(file, "state") };
    const host = await series.host({ mirrors: [mirror.address], paths });
    const refused = await host.run("apply");
    expect(refused.exitCode, refused.stderr).toBe(7);
    expect(refused.stderr).toContain("IO_FAILED");
  });

  test.skipIf(noMounts !== null)(`is the directory of the GC roots${mounted}`, async () => {
    const { host } = await servedRelease(series);
    const roots = join(host.root, "nix/var/nix/gcroots/nixos-pull");
    const before = await snapshotOf(host);
    mountReadOnly(roots);
    const refused = await answerOf(host, "apply");
    expect(refused).toMatchObject({ exitCode: 7, error: { code: "PERMISSION_DENIED" } });
    expect(await snapshotOf(host)).toEqual(before);
    unmount(roots);
    await expectRecovery(host);
  });
});

describe("two agents on one host", () => {
  test("do not run as services at the same time", async () => {
    const { host } = await servedRelease(series);
    const first = host.start("run");
    await first.sees("following channel");
    const other = await host.run("run");
    expect(other.exitCode, other.stderr).toBe(9);
    expect(other.stderr).toContain("AGENT_RUNNING");
    first.child.kill("SIGTERM");
    expect((await first.ended).exitCode).toBe(0);
    const next = host.start("run");
    await next.sees("following channel");
  });

  test("do not update at the same time", async () => {
    const { host } = await servedRelease(series);
    const open = await gateSwitches(host);
    const first = host.start("apply");
    await first.sees("switching to generation 2");
    for (const command of ["apply", "rollback"]) {
      const busy = await host.run(command);
      expect(busy.exitCode, busy.stderr).toBe(9);
      expect(busy.stderr).toContain("AGENT_BUSY");
    }
    expect(await answerOf(host, "apply")).toMatchObject({ error: { code: "AGENT_BUSY" } });
    const { state } = await jsonOf<{ state: { name: string } }>(host, "status");
    expect(state.name).toBe("Activating");
    expect((await host.run("check")).stderr).toMatch(
      /^An update is under way, in Activating: activating, since .*\.$/m,
    );
    await open();
    const updated = await first.ended;
    expect(updated.exitCode, updated.stderr).toBe(0);
    expect(await host.switchLog()).toEqual(runsOf(series.toplevels[1], series.toplevels[2]));
  });
});

describe("a host at release 2 whose memory was damaged", () => {
  const torn = (path: string): Promise<void> => truncate(path, 100);
  const emptied = (path: string): Promise<void> => truncate(path, 0);
  const gone = (path: string): Promise<void> => rm(path);
  const altered = async (path: string): Promise<void> => {
    const text = await readFile(path, "utf8");
    await writeFile(path, text.replaceAll('"sequence": 2', '"sequence": 1'));
  };

  test.each([
    { files: ["state.json"], damage: torn },
    { files: ["trust.json"], damage: torn },
    { files: ["state.json", "trust.json"], damage: torn },
    { files: ["state.json"], damage: gone },
    { files: ["state.json", "trust.json"], damage: gone },
    { files: ["state.json", "trust.json"], damage: emptied },
    { files: ["state.json", "trust.json"], damage: altered },
  ])("($files $damage.name) still refuses release 1", async ({ damage, files }) => {
    const mirror = await series.mirror(2);
    const host = await series.host({ mirrors: [mirror.address] });
    await host.run("apply");
    const before = await snapshotOf(host);
    for (const file of files) await damage(join(host.state, file));
    await mirror.release(1);
    const replayed = await answerOf(host, "apply");
    expect(replayed).toMatchObject({ exitCode: 4, error: { code: "SEQUENCE_REPLAYED" } });
    expect(await snapshotOf(host)).toEqual(before);
    await mirror.release(3);
    await expectRecovery(host, 3);
  });

  test("says so, and is not switched again to what it is already", async () => {
    const mirror = await series.mirror(2);
    const host = await series.host({ mirrors: [mirror.address] });
    await host.run("apply");
    const before = await snapshotOf(host);
    await torn(join(host.state, "state.json"));
    const same = await host.run("apply");
    expect(same.exitCode, same.stderr).toBe(0);
    expect(same.stderr).toContain("STATE_CORRUPT");
    expect(await snapshotOf(host)).toEqual(before);
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, decision: "active" });
  });

  test("beyond repair asks a person, once", async () => {
    const mirror = await series.mirror(2);
    const host = await series.host({ mirrors: [mirror.address] });
    const before = await snapshotOf(host);
    for (const file of ["trust.json", "history.jsonl"]) await rm(join(host.state, file));
    await rm(join(host.root, "nix/var/nix/gcroots/nixos-pull.trust.json"));
    await rm(`${host.state}.run`, { recursive: true });
    await truncate(join(host.state, "state.json"), 100);
    const refused = await host.run("apply");
    expect(refused.exitCode).toBe(7);
    expect(refused.stderr).toMatch(/STATE_CORRUPT.*--accept-state-loss/s);
    expect(await snapshotOf(host)).toEqual(before);
    const accepted = await host.run("apply", "--accept-state-loss");
    expect(accepted.exitCode, accepted.stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, decision: "active" });
  });
});

describe("a link in the place of", () => {
  /** A directory with a file that no update may touch. */
  async function bystander(): Promise<{ path: string; check(): Promise<void> }> {
    const path = await temporaryDirectory();
    await writeFile(join(path, "file"), "precious");
    return {
      path,
      async check() {
        expect(await readFile(join(path, "file"), "utf8")).toBe("precious");
        expect(await readdir(path)).toEqual(["file"]);
      },
    };
  }
  const archive = (): string => series.manifests[2].hosts["web1"]?.archive.sha256 ?? "";

  async function applyWithLink(place: string, target: "directory" | "file"): Promise<void> {
    const { host } = await servedRelease(series);
    const { path, check } = await bystander();
    const link = join(host.staging, place);
    await mkdir(dirname(link), { recursive: true });
    await symlink(target === "file" ? join(path, "file") : path, link);
    const updated = await host.run("apply");
    expect(updated.exitCode, updated.stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
    await check();
  }

  test("staging is refused and leads no write elsewhere", async () => {
    const { host } = await servedRelease(series);
    const { path, check } = await bystander();
    await mkdir(dirname(host.staging), { recursive: true });
    await symlink(path, host.staging);
    expect((await host.run("apply")).stderr).toContain("STAGING_UNSAFE");
    await check();
  });
  test("the archive's directory leads no write elsewhere", () =>
    applyWithLink(archive(), "directory"));

  test.each(["nar", "index.json.gz", "nix-cache-info"])(
    "%s in the archive's directory leads no write elsewhere",
    async (name) => {
      await applyWithLink(join(archive(), name), name === "nar" ? "directory" : "file");
    },
  );
});

/** Makes the first run of generation 2 wait until the function that it gives is called. */
async function gateSwitches(host: SandboxHost): Promise<() => Promise<void>> {
  const gate = join(host.root, "gate");
  await runProcess("mkfifo", [gate], { env: testEnvironment(), timeoutMs: 240_000 });
  await hookSwitches(
    host,
    `if [ "$generation $mode" = "2 test" ]; then read line < "$root/gate"; fi`,
  );
  return () => writeFile(gate, "go\n");
}

const onTwo = (script: string): string => `if [ $generation = 2 ]; then ${script}; fi`;

describe("a switch to release 2 that", () => {
  interface Failure {
    readonly name: string;
    readonly hook: string;
    readonly code: string;
    readonly settings?: Record<string, unknown>;
    /** Whether something else may be to blame: then it waits for another release, and is not denied. */
    readonly unblamed?: boolean;
    /** Whether that comes out only once the system is proven and becomes the boot default. */
    readonly committing?: boolean;
  }
  const FAILURES: Failure[] = [
    { name: "fails with exit code 1", hook: "exit 1", code: "ACTIVATION_FAILED" },
    { name: "fails with exit code 2", hook: "exit 2", code: "ACTIVATION_FAILED" },
    { name: "fails with exit code 4", hook: "exit 4", code: "ACTIVATION_FAILED" },
    {
      name: "is ended by a signal, as often as it may be",
      hook: "kill -SEGV $$",
      code: "ACTIVATION_INTERRUPTED",
      settings: { activation: { attempts: 1 } },
      unblamed: true,
    },
    {
      name: "takes too long",
      hook: "sleep 300",
      code: "ACTIVATION_TIMEOUT",
      settings: { activation: { timeout: "1s", attempts: 1 } },
      unblamed: true,
    },
    {
      name: "takes too long and does not listen to SIGTERM",
      hook: "trap '' TERM; while :; do sleep 1; done",
      code: "ACTIVATION_TIMEOUT",
      settings: { activation: { timeout: "1s", attempts: 1 } },
      unblamed: true,
    },
    {
      name: "changes half of the host and fails",
      hook: 'ln -sfn $out "$root/run/current-system"; exit 4',
      code: "ACTIVATION_FAILED",
    },
    { name: "says that all is well and does nothing", hook: "exit 0", code: "ACTIVATION_FAILED" },
    {
      name: "moves the profile elsewhere",
      hook: `ln -sfn system-1-link "$root/nix/var/nix/profiles/system"`,
      code: "HEALTH_FAILED",
      committing: true,
    },
  ];

  test.each(FAILURES)("$name is rolled back and not tried again", async (failure) => {
    const { mirror, host } = await servedRelease(series, failure.settings);
    const before = await snapshotOf(host);
    await hookSwitches(host, onTwo(failure.hook));
    const failed = await answerOf(host, "apply");
    expect(failed).toMatchObject({ exitCode: 8, updated: false, error: { code: failure.code } });
    const { 1: first, 2: second } = series.toplevels;
    const log = [
      ...runsOf(first),
      ...(failure.committing ? runsOf(second) : [`test ${second}`]),
      `switch ${first}`,
    ];
    expect(await snapshotOf(host)).toEqual({ ...before, switchLog: log });
    expect(await rootsOf(host)).toEqual(before.roots);
    expect(await host.stagingIsClean()).toBe(true);

    const again = await answerOf(host, failure.unblamed ? "check" : "apply");
    expect(again).toMatchObject({
      decision: failure.unblamed ? "backoff" : "denied",
      reason: { code: failure.code },
    });
    expect((await snapshotOf(host)).switchLog).toEqual(log);
    await mirror.release(3);
    await expectRecovery(host, 3);
  });

  test("is ended by a signal is undone, not denied, and tried again", async () => {
    const { host } = await servedRelease(series);
    const before = await snapshotOf(host);
    await hookSwitches(host, onTwo("kill -KILL $$"));
    const cut = await answerOf(host, "apply");
    expect(cut).toMatchObject({
      ...{ exitCode: 8, updated: false, error: { code: "ACTIVATION_INTERRUPTED" } },
      state: { name: "Failed", attempts: 1 },
    });
    const after = await snapshotOf(host);
    expect({ ...after, switchLog: [] }).toEqual({ ...before, switchLog: [] });
    await hookSwitches(host, "");
    await expectRecovery(host);
  });

  test("failed is tried again where a person insists", async () => {
    const { host } = await servedRelease(series);
    await hookSwitches(host, onTwo("exit 1"));
    expect((await host.run("apply")).exitCode).toBe(8);
    expect((await host.run("status")).stdout).toMatch(
      /^✗ release 2 failed .*: ACTIVATION_FAILED: /,
    );
    await hookSwitches(host, "");
    expect((await host.run("apply")).exitCode).toBe(8);
    const insisted = await host.run("apply", "--again");
    expect(insisted.exitCode, insisted.stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, decision: "active" });
  });

  test("wants a reboot counts as done and is shown", async () => {
    const { host } = await servedRelease(series);
    await hookSwitches(host, onTwo("exit 100"));
    const updated = await answerOf(host, "apply");
    expect(updated).toMatchObject({
      exitCode: 0,
      updated: true,
      committed: { sequence: 2 },
      pendingReboot: { release: { sequence: 2 } },
    });
    expect((await host.run("status")).stdout).toContain("REBOOT NEEDED");
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
  });

  test("leaves a daemon behind is not waited for until that ends", async () => {
    const { host } = await servedRelease(series);
    await hookSwitches(host, onTwo('setsid sleep 600 & echo $! > "$root/daemon.pid"'));
    const updated = await host.run("apply");
    process.kill(Number(await readFile(join(host.root, "daemon.pid"), "utf8")));
    expect(updated.exitCode, updated.stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
  });

  test("fails, and whose way back fails too, is brought back by the next run", async () => {
    const { host } = await servedRelease(series);
    const before = await snapshotOf(host);
    await hookSwitches(host, "exit 1");
    const failed = await answerOf(host, "apply");
    expect(failed).toMatchObject({ exitCode: 8, state: { name: "RollingBack" } });
    expect(await host.profileToplevel()).toBe(series.toplevels[1]);
    await hookSwitches(host, "");
    const resumed = await answerOf(host, "apply");
    expect(resumed).toMatchObject({ exitCode: 8, decision: "denied", state: { name: "Idle" } });
    const after = await snapshotOf(host);
    expect({ ...after, switchLog: [] }).toEqual({ ...before, switchLog: [] });
  });

  test("finds the lock of another one held all the time undoes nothing and is tried later", async () => {
    const { host } = await servedRelease(series);
    const before = await snapshotOf(host);
    await hookSwitches(host, onTwo('echo "Could not acquire lock"; exit 11'));
    const locked = await answerOf(host, "apply");
    expect(locked).toMatchObject({
      ...{ exitCode: 8, updated: false, error: { code: "SWITCH_LOCKED" } },
      state: { name: "Failed", attempts: 1 },
    });
    const after = await snapshotOf(host);
    expect(after.switchLog).not.toContain(`switch ${series.toplevels[1]}`);
    expect({ ...after, switchLog: [] }).toEqual({ ...before, switchLog: [] });
    await hookSwitches(host, "");
    await expectRecovery(host);
  }, 600_000);

  test("finds the lock of another one held waits for it", async () => {
    const { host } = await servedRelease(series);
    await hookSwitches(
      host,
      onTwo(
        'if [ ! -e "$root/tried" ]; then touch "$root/tried"; echo "Could not acquire lock"; exit 11; fi',
      ),
    );
    await expectRecovery(host);
    const past = await jsonOf<{ entries: { event: string }[] }>(host, "history");
    expect(past.entries.map(({ event }) => event)).not.toContain("ActivationRejected");
  });
});

test("a first release that fails leaves no profile and no roots", async () => {
  const mirror = await series.mirror(2);
  const host = await createHost({ mirrors: [mirror.address], publicKeys: [series.publicKey] });
  await hookSwitches(host, "exit 1");
  const failed = await answerOf(host, "apply");
  expect(failed).toMatchObject({ exitCode: 8, error: { code: "ACTIVATION_FAILED" } });
  expect(await host.profileToplevel()).toBeNull();
  await expect(readlink(host.profile)).rejects.toThrow("ENOENT");
  expect(await rootsOf(host)).toEqual({});
  await hookSwitches(host, "");
  await mirror.release(3);
  await expectRecovery(host, 3);
});

describe("a rollback by hand", () => {
  /** A host that runs release 2, with a switch back to generation 1 that fails like this. */
  async function rollBackWith(hook: string): Promise<SandboxHost> {
    const { host } = await servedRelease(series);
    await host.run("apply");
    await hookSwitches(host, `if [ $generation = 1 ]; then ${hook}; fi`);
    expect((await host.run("rollback")).exitCode).not.toBe(0);
    await hookSwitches(host, "");
    return host;
  }

  test("that fails is shown, and tried again by the next run", async () => {
    const host = await rollBackWith("exit 1");
    expect((await host.run("status")).stdout).toMatch(
      /^✗ web1 was left in the middle of a way back to generation 1, .*\n {2}It failed 1 time\.$/m,
    );
    expect((await host.run("apply")).exitCode).toBe(8);
    const { profile, running } = await snapshotOf(host);
    const first = series.toplevels[1];
    expect({ profile, running }).toEqual({ profile: first, running: first });
    expect((await host.run("status")).stdout).not.toMatch(/^state /m);
  });

  test("that is killed in the middle is brought to an end by the next run", async () => {
    const host = await rollBackWith("kill -9 $PPID $$");
    await host.run("apply");
    const { profile, running } = await snapshotOf(host);
    expect(running).toBe(profile);
  });
});

describe("the garbage collector", () => {
  const collect = (host: SandboxHost): Promise<unknown> =>
    runProcess("nix-store", ["--gc", "--store", `local?root=${host.root}`], {
      env: testEnvironment(),
      timeoutMs: 240_000,
    });

  test("takes nothing of a release that is under way, nor of the one before", async () => {
    // In this mode no profile keeps the system.
    const { host } = await servedRelease(series, { activation: { mode: "test" } });
    const open = await gateSwitches(host);
    const applying = host.start("apply");
    await applying.sees("switching to generation 2");
    await collect(host);
    await open();
    const { exitCode, stderr } = await applying.ended;
    expect(exitCode, stderr).toBe(0);
    await collect(host);
    const { 1: first, 2: second } = series.toplevels;
    expect(await host.switchLog()).toEqual([...runsOf(first), `test ${second}`]);
    for (const toplevel of [series.toplevels[1], series.toplevels[2]]) {
      expect(await readdir(join(host.root, toplevel))).toContain("bin");
    }
  });
});
