import { execFileSync } from "node:child_process";
import {
  chmod,
  chown,
  lstat,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import type { TrustMemories, TrustMemory } from "../../../../agent/core/release/acceptance.ts";
import { EMPTY_RECORD, type AgentRecord } from "../../../../agent/core/update/record.ts";
import { writeChecked } from "../../../../agent/effects/files/checked-file.ts";
import { History } from "../../../../agent/effects/state/history.ts";
import { StateFile, unsafeIf } from "../../../../agent/effects/state/state-file.ts";
import { recordDiskOperations } from "../../../support/disk-operations.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { LATER_KEY, ofLaterVersion } from "../../../support/other-version.ts";
import { recordingLog } from "../../../support/recording-log.ts";
import { sampleDigest, sampleRelease } from "../../../support/sample-release.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const AT = "2026-02-01T00:00:00.000Z";

function memory(channel: string, sequence: number): TrustMemory {
  return {
    ...{ channel, sequence, digest: sampleDigest(`${channel} ${sequence}`) },
    createdAt: "2026-01-31T12:00:00.000Z",
  };
}

const TRUST = [memory("stable", 7), memory("canary", 100)];
const RECORD: AgentRecord = {
  ...EMPTY_RECORD,
  state: { name: "Candidate", release: sampleRelease(), attempts: 1 },
  trust: TRUST,
};

/** A state directory, and a new agent's view of it each time. */
async function stateDirectory() {
  const parent = await temporaryDirectory();
  const [directory, runtime] = [join(parent, "state"), join(parent, "run")];
  const history = new History(directory);
  const log = recordingLog();
  let machine: string | null = null;
  const machineId = async () => machine;
  const open = () => new StateFile({ state: directory, runtime }, { history, log, machineId });
  await open().prepare();
  return {
    ...{ directory, runtime, history, log, open },
    /** From now on this is another machine, or one with an identity. */
    become(id: string | null) {
      machine = id;
    },
    record: join(directory, "state.json"),
    trust: join(directory, "trust.json"),
    /**
     * Saves the sample record and puts its memories into the history, as the agent does;
     * then the host is booted, which the record's copy does not outlive.
     */
    async live({ thenBoots = true } = {}) {
      await open().save(RECORD);
      if (thenBoots) await rm(runtime, { recursive: true });
      for (const one of TRUST) {
        await history.append({ at: AT, event: "ManifestAccepted", state: "Idle", trust: one });
      }
    },
    alarms: () =>
      log.lines.filter(({ level }) => level === "error").map(({ fields }) => fields["code"]),
  };
}

function sequences(memories: TrustMemories): Record<string, number> {
  return Object.fromEntries(memories.map(({ channel, sequence }) => [channel, sequence]));
}

const BOTH = { stable: 7, canary: 100 };

test("the directory is the owner's alone, also where it was there with other rights", async () => {
  const { directory, open } = await stateDirectory();
  expect((await stat(directory)).mode & 0o777).toBe(0o700);
  await chmod(directory, 0o755);
  await open().prepare();
  expect((await stat(directory)).mode & 0o777).toBe(0o700);
});

describe("a directory that others could write to is not used", () => {
  test.each([0o777, 0o770, 0o1777, 0o702])("the state directory of mode %o", async (mode) => {
    const { directory, open } = await stateDirectory();
    await chmod(directory, mode);
    const failure = await rejectionOf(open().prepare());
    expect(failure.code).toBe("STATE_UNSAFE");
    expect(failure.message).toContain(
      `${directory}: expected a directory of user ${process.geteuid?.()} that no others write to, ` +
        `found mode ${mode.toString(8)} of user`,
    );
    expect(failure.message).toContain(`&& chmod go-w ${directory}\``);
    // It is for a person to look at first.
    expect((await stat(directory)).mode & 0o7777).toBe(mode);
  });

  test("the runtime directory", async () => {
    const { runtime, open } = await stateDirectory();
    await mkdir(runtime);
    await open().prepare();
    await chmod(runtime, 0o755);
    await open().prepare();
    await chmod(runtime, 0o777);
    const failure = await rejectionOf(open().prepare());
    expect(failure.code).toBe("STATE_UNSAFE");
    expect(failure.message).toContain(`${runtime}: expected a directory of user`);
  });

  test.runIf(process.geteuid?.() === 0)("one of another user, whatever its mode", async () => {
    const { directory, runtime, open } = await stateDirectory();
    await mkdir(runtime, { mode: 0o700 });
    await chown(runtime, 1234, 1234);
    expect((await rejectionOf(open().prepare())).message).toContain("found mode 700 of user 1234");
    await chown(runtime, 0, 0);
    await chown(directory, 1234, 1234);
    expect((await rejectionOf(open().prepare())).message).toContain("found mode 700 of user 1234");
  });

  test("a link to a directory of ours is used: the settings name it", async () => {
    const { directory, open } = await stateDirectory();
    await rename(directory, `${directory}-elsewhere`);
    await symlink(`${directory}-elsewhere`, directory);
    await open().prepare();
    await chmod(`${directory}-elsewhere`, 0o777);
    expect((await rejectionOf(open().prepare())).code).toBe("STATE_UNSAFE");
  });
});

test("a host without any state starts with the empty record and without an alarm", async () => {
  const { open, alarms } = await stateDirectory();
  expect(await open().load()).toEqual(EMPTY_RECORD);
  expect(alarms()).toEqual([]);
});

test("the memories are written before the record's copy, and the copy before the record", async () => {
  const { directory, runtime, open } = await stateDirectory();
  const operations = await recordDiskOperations();
  await open().save(RECORD);
  const written = operations.flatMap((it) => (it.kind === "rename" ? [it.to] : []));
  // After a cut in between, no file is ahead of one that another agent would believe first.
  expect(written).toEqual([
    join(directory, "trust.json"),
    join(runtime, "state.json"),
    join(directory, "state.json"),
  ]);
});

test("what was saved is loaded, by a new process too", async () => {
  const { open, live, alarms } = await stateDirectory();
  await live();
  expect(await open().load()).toEqual(RECORD);
  expect(alarms()).toEqual([]);
});

test("the memories' own file is only written where they changed", async () => {
  const { open, live, trust } = await stateDirectory();
  await live();
  const state = open();
  const before = (await stat(trust)).ino;
  await state.save({ ...(await state.load()), state: { name: "Idle" } });
  expect((await stat(trust)).ino).toBe(before);
  await state.save({ ...RECORD, trust: [memory("stable", 8)] });
  expect((await stat(trust)).ino).not.toBe(before);
});

test("a history that was lost raises an alarm", async () => {
  const { open, live, directory, alarms } = await stateDirectory();
  await live();
  await rm(join(directory, "history.jsonl"));
  expect(await open().load()).toEqual(RECORD);
  expect(alarms()).toEqual(["STATE_LOST"]);
});

test("files that a kill left unfinished are removed, and nothing else", async () => {
  const { open, live, directory, runtime } = await stateDirectory();
  await live({ thenBoots: false });
  const before = [await readdir(directory), await readdir(runtime)];
  for (const where of [directory, runtime]) {
    await writeFile(join(where, "state.json.tmp-0123456789ab"), "{");
  }
  await open().removeUnfinished();
  expect([await readdir(directory), await readdir(runtime)]).toEqual(before);
});

const DAMAGES: [string, (path: string) => Promise<void>][] = [
  ["lost", (path) => rm(path)],
  ["emptied", (path) => writeFile(path, "")],
  ["torn", async (path) => writeFile(path, (await readFile(path)).subarray(0, 60))],
  ["altered", async (path) => writeFile(path, (await readFile(path, "utf8")).replace("7", "6"))],
  ["full of zeros", async (path) => writeFile(path, Buffer.alloc((await stat(path)).size))],
  ["of a newer version", (path) => writeChecked(path, { formatVersion: 2 })],
];

describe.each(DAMAGES)("where a file was %s", (how, damage) => {
  test("the memories are whole as long as the record is", async () => {
    const { open, live, trust, alarms } = await stateDirectory();
    await live();
    await damage(trust);
    expect(await open().load()).toEqual(RECORD);
    expect(alarms()).toEqual([how === "lost" ? "STATE_LOST" : "STATE_CORRUPT"]);
  });

  test("the next save mends the memories' file", async () => {
    const { open, live, trust, record } = await stateDirectory();
    await live();
    await damage(trust);
    const state = open();
    await state.save(await state.load());
    await rm(record);
    expect(sequences((await open().load()).trust)).toEqual(BOTH);
  });

  test("losing the record keeps the memories, with an alarm", async () => {
    const { open, live, record, alarms } = await stateDirectory();
    await live();
    await damage(record);
    const loaded = await open().load();
    expect(loaded).toEqual({ ...EMPTY_RECORD, trust: loaded.trust });
    expect(sequences(loaded.trust)).toEqual(BOTH);
    expect(alarms()).toContain(how === "lost" ? "STATE_LOST" : "STATE_CORRUPT");
  });

  test("losing the record keeps the memories also without a history", async () => {
    const { open, live, record, directory } = await stateDirectory();
    await live();
    await rm(join(directory, "history.jsonl"));
    await damage(record);
    expect(sequences((await open().load()).trust)).toEqual(BOTH);
  });

  test("losing both keeps the memories by the history, with an alarm", async () => {
    const { open, live, record, trust, alarms } = await stateDirectory();
    await live();
    await damage(record);
    await damage(trust);
    expect(sequences((await open().load()).trust)).toEqual(BOTH);
    expect(alarms()).toContain(how === "lost" ? "STATE_LOST" : "STATE_CORRUPT");
  });

  test("losing both with a history that remembers nothing is refused, unless it is accepted", async () => {
    const { open, record, trust, runtime, history, alarms } = await stateDirectory();
    await open().save(RECORD);
    await rm(runtime, { recursive: true });
    await history.append({ at: AT, event: "FetchBegun", state: "Fetching" });
    await damage(record);
    await damage(trust);
    const failure = await rejectionOf(open().load());
    expect(failure.code).toBe(how === "lost" ? "STATE_LOST" : "STATE_CORRUPT");
    expect(failure.message).toContain("--accept-state-loss");
    expect(await open().load({ acceptLoss: true })).toEqual(EMPTY_RECORD);
    expect(alarms()).toContain(failure.code);
  });
});

describe("where all three copies are damaged", () => {
  test("the loss is refused, and accepted only by word", async () => {
    const { open, live, record, trust, directory } = await stateDirectory();
    await live();
    for (const path of [record, trust, join(directory, "history.jsonl")])
      await writeFile(path, "#");
    expect((await rejectionOf(open().load())).code).toBe("STATE_CORRUPT");
    const state = open();
    await state.save(await state.load({ acceptLoss: true }));
    expect(await open().load()).toEqual(EMPTY_RECORD);
  });

  test("a damaged file is no new host, even where there is nothing else", async () => {
    for (const name of ["state.json", "trust.json"]) {
      const { open, directory } = await stateDirectory();
      await writeFile(join(directory, name), "");
      expect((await rejectionOf(open().load())).code).toBe(
        name === "state.json" ? "STATE_CORRUPT" : "STATE_LOST",
      );
    }
  });
});

describe("memories in several copies", () => {
  test("give the highest sequence of each channel, wherever it is", async () => {
    const { open, trust } = await stateDirectory();
    await open().save({ ...RECORD, trust: [memory("stable", 7), memory("canary", 3)] });
    await writeChecked(trust, [memory("stable", 5), memory("canary", 100), memory("edge", 1)]);
    expect(sequences((await open().load()).trust)).toEqual({ stable: 7, canary: 100, edge: 1 });
  });

  test("cannot be turned back by putting an older record in place", async () => {
    const { open, record } = await stateDirectory();
    await open().save({ ...RECORD, trust: [memory("stable", 5)] });
    const older = await readFile(record);
    await open().save({ ...RECORD, trust: [memory("stable", 9)] });
    await writeFile(record, older);
    expect(sequences((await open().load()).trust)).toEqual({ stable: 9 });
  });
});

describe("a copy outside of the state directory", () => {
  async function twoDisks() {
    const made = await stateDirectory();
    const elsewhere = join(made.directory, "../other-disk/trust.json");
    const paths = { state: made.directory, runtime: made.runtime, memories: elsewhere };
    const open = () => new StateFile(paths, { ...made, machineId: async () => null });
    return { ...made, elsewhere, open };
  }

  test("is written with the memories, and alone is enough to remember them", async () => {
    const { open, directory, runtime, alarms } = await twoDisks();
    await open().save(RECORD);
    await rm(directory, { recursive: true });
    await rm(runtime, { recursive: true });
    expect(sequences((await open().load()).trust)).toEqual(BOTH);
    expect(alarms()).toEqual(["STATE_LOST"]);
  });

  test("is made for a host that did not have it, without an alarm", async () => {
    const { open, live, elsewhere, alarms } = await twoDisks();
    await live();
    await rm(elsewhere, { force: true });
    const state = open();
    await state.mend(await state.load(), new Date(AT));
    expect((await stat(elsewhere)).mode & 0o777).toBe(0o600);
    expect(alarms()).toEqual([]);
  });

  test("counts where it is higher", async () => {
    const { open, elsewhere } = await twoDisks();
    await open().save(RECORD);
    await writeChecked(elsewhere, [memory("stable", 70)]);
    expect(sequences((await open().load()).trust)).toEqual({ stable: 70, canary: 100 });
  });
});

describe("mending", () => {
  test("writes all copies again, once, and leaves a line in the history", async () => {
    const { open, live, record, trust, history, alarms } = await stateDirectory();
    await live();
    await writeFile(record, "#");
    await writeFile(trust, "#");
    const state = open();
    await state.mend(await state.load(), new Date(AT));
    const told = alarms().length;
    expect(sequences((await open().load()).trust)).toEqual(BOTH);
    expect(alarms()).toHaveLength(told);
    const mended = (await history.read()).filter(({ event }) => event === "StateMended");
    expect(mended.map(({ code }) => code)).toEqual(Array(3).fill("STATE_CORRUPT"));
  });

  test("writes nothing where nothing is wrong", async () => {
    const { open, live, record, history } = await stateDirectory();
    await live();
    const before = (await stat(record)).ino;
    const state = open();
    await state.mend(await state.load(), new Date(AT));
    expect((await stat(record)).ino).toBe(before);
    expect((await history.read()).map(({ event }) => event)).not.toContain("StateMended");
  });
});

describe("something else in the place of a file", () => {
  /** What may lie there, in place of a file. */
  const OBSTACLES: Record<string, (path: string) => Promise<unknown>> = {
    "a directory": (path) => mkdir(path),
    "a FIFO, which nobody waits for": async (path) => execFileSync("mkfifo", [path]),
    "a link to itself": (path) => symlink(path, path),
    "a file on a bad sector": (path) => symlink("/proc/self/mem", path),
  };
  const cases = Object.keys(OBSTACLES).flatMap((what) =>
    (["state.json", "trust.json", "history.jsonl"] as const).map((name) => [what, name] as const),
  );

  test.each(cases)("%s as %s costs nothing but that file", async (what, name) => {
    const { directory, open, live, history } = await stateDirectory();
    await live({ thenBoots: false });
    const path = join(directory, name);
    await rm(path);
    await OBSTACLES[what]?.(path);
    for (let round = 0; round < 2; round++) {
      const state = open();
      const record = await state.load();
      expect(record).toEqual(RECORD);
      await state.mend(record, new Date(AT));
      await state.save({ ...record, trust: [...TRUST, memory("edge", round + 1)] });
      await history.append({ at: AT, event: "Kept", state: "Idle" });
      await state.save(RECORD);
    }
    expect((await lstat(path)).isFile()).toBe(true);
    expect((await open().recall()).alarms).toEqual([]);
  });
});

test("the record of another machine is not this one's, but its memories are", async () => {
  const { open, live, become, alarms } = await stateDirectory();
  become("a".repeat(64));
  await live({ thenBoots: false });
  expect(await open().load()).toEqual(RECORD);
  become("b".repeat(64));
  expect(await open().load()).toEqual({ ...EMPTY_RECORD, trust: RECORD.trust });
  expect(alarms()).toEqual(["STATE_CORRUPT", "STATE_CORRUPT"]);
  const state = open();
  await state.mend(await state.load(), new Date(AT));
  expect((await open().recall()).alarms).toEqual([]);
  // A host without an identity cannot tell.
  become(null);
  expect((await open().recall()).alarms).toEqual([]);
});

describe("the record's copy", () => {
  test.each([
    ["the record", ["state.json"]],
    ["the record and the memories", ["state.json", "trust.json"]],
    ["the whole directory", ["state.json", "trust.json", "history.jsonl"]],
  ])("is used, with an alarm, where %s is lost", async (_, lost) => {
    const { directory, open, live, alarms } = await stateDirectory();
    await live({ thenBoots: false });
    for (const name of lost) await rm(join(directory, name));
    expect(await open().load()).toEqual(RECORD);
    expect(alarms()).toEqual(["STATE_LOST"]);
  });

  test("is used where the record is torn, and never where it is whole", async () => {
    const { record, runtime, open, live, alarms } = await stateDirectory();
    await live({ thenBoots: false });
    await writeChecked(join(runtime, "state.json"), { ...EMPTY_RECORD, writes: 2 });
    expect((await open().load()).state).toEqual(RECORD.state);
    expect(alarms()).toEqual([]);
    const state = open();
    await state.save(await state.load());
    await writeFile(record, (await readFile(record)).subarray(0, 100));
    expect(await open().load()).toEqual(RECORD);
    expect(alarms()).toEqual(["STATE_CORRUPT", "STATE_CORRUPT"]);
  });

  test("is not used if it is out of date, and says so while the record is whole", async () => {
    const { record, runtime, history, open, live } = await stateDirectory();
    await live({ thenBoots: false });
    const old = await readFile(join(runtime, "state.json"));
    const state = open();
    const writes = await state.save({ ...(await state.load()), state: { name: "Idle" } });
    await history.append({ at: AT, event: "Later", state: "Idle", writes });
    // As if the copy could not be written.
    await writeFile(join(runtime, "state.json"), old);
    const { alarms } = await open().recall();
    expect(alarms.map(({ code, message }) => [code, message])).toEqual([
      ["STATE_LOST", expect.stringContaining("is out of date: it could not be written")],
    ]);
    const whole = await readFile(record);
    await rm(record);
    expect((await open().load()).state).toEqual({ name: "Idle" });
    const said = (await open().recall()).alarms.map(({ message }) => message);
    expect(said).toEqual([
      expect.stringContaining("is not used: expected write 2, found write 1"),
      expect.stringContaining("starts anew with what is remembered"),
    ]);
    // The next tick of an agent whose record is whole brings the copy up to date.
    await writeFile(record, whole);
    const next = open();
    await next.mend(await next.load(), new Date(AT));
    expect((await open().recall()).alarms).toEqual([]);
  });

  test("never takes the memories back", async () => {
    const { directory, runtime, open, live } = await stateDirectory();
    await live({ thenBoots: false });
    await writeChecked(join(runtime, "state.json"), { ...RECORD, trust: [memory("stable", 6)] });
    await rm(join(directory, "state.json"));
    expect(sequences((await open().load()).trust)).toEqual(BOTH);
  });

  test("that cannot be written leaves the record as good as it was", async () => {
    const { runtime, open, log } = await stateDirectory();
    await writeFile(runtime, "in the way");
    await open().save(RECORD);
    expect(await open().load()).toEqual(RECORD);
    expect(log.lines.filter(({ level }) => level === "warn")).toHaveLength(1);
  });
});

describe("a record of another version", () => {
  const SOAKING = { name: "Soaking", since: AT, readAs: RECORD.state };

  /** A state directory with the record of a later version, in its file and in the copy. */
  async function upgraded(state: object) {
    const host = await stateDirectory();
    await host.live({ thenBoots: false });
    const record = ofLaterVersion({ ...RECORD, trust: TRUST, state, writes: 5 });
    for (const directory of [host.directory, host.runtime]) {
      await writeChecked(join(directory, "state.json"), record);
    }
    await writeChecked(host.trust, ofLaterVersion(TRUST));
    const written = async (): Promise<unknown> =>
      (JSON.parse(await readFile(host.record, "utf8")) as { value: unknown }).value;
    return { ...host, expected: record as object, written };
  }

  test("comes back as it was, with keys and a state that are not known", async () => {
    const { open, alarms, written, expected, trust } = await upgraded(SOAKING);
    const file = open();
    const record = await file.load();
    expect(record.state).toEqual(ofLaterVersion(RECORD.state));
    await file.mend(record, new Date(AT));
    expect(alarms()).toEqual([]);
    expect(await written()).toEqual(expected);
    await file.save({ ...record, holdsRebootSlot: true });
    expect(await written()).toEqual({ ...expected, holdsRebootSlot: true, writes: 6 });
    expect(await readFile(trust, "utf8")).toContain(LATER_KEY);
  });

  test("has the state that something led to, once it did", async () => {
    const { open, written } = await upgraded(SOAKING);
    const file = open();
    const record = await file.load();
    await file.save({ ...record, state: { name: "Idle" } });
    expect(await written()).toMatchObject({ state: { name: "Idle" }, [LATER_KEY]: {} });
  });

  test("raises an alarm, once, if its state is not known at all", async () => {
    const { open, alarms, history } = await upgraded({ name: "Soaking" });
    const file = open();
    const record = await file.load();
    expect(record).toMatchObject({ state: { name: "Idle" }, denied: RECORD.denied });
    expect(sequences(record.trust)).toEqual(BOTH);
    expect(alarms()).toEqual(["STATE_UNKNOWN"]);
    await file.mend(record, new Date(AT));
    expect((await history.read()).at(-1)).toMatchObject({
      ...{ event: "StateMended", code: "STATE_UNKNOWN" },
    });
    await open().load();
    expect(alarms()).toHaveLength(1);
  });

  test("has lines in the history that are read, and whose unknown keys stay", async () => {
    const { history, directory } = await stateDirectory();
    const entry = { at: AT, event: "Soaked", state: "Soaking", code: "CODE_OF_0_2" };
    await writeFile(
      join(directory, "history.jsonl"),
      `${JSON.stringify(ofLaterVersion({ ...entry, trust: TRUST[0] }))}\n`,
    );
    expect(await history.findLast("Soaked")).toEqual(ofLaterVersion({ ...entry, trust: TRUST[0] }));
    // The memories stay when the file is rotated.
    for (let size = 0; size < 1024 * 1024; size += 10_000) {
      await history.append({ at: AT, event: "x", state: "Idle", message: "x".repeat(10_000) });
    }
    const rotated = await history.findLast("HistoryRotated");
    expect(rotated?.trust).toEqual(ofLaterVersion(TRUST[0]));
  });
});

test("an ordinary user is told to ask as root, never to take the directory over", async () => {
  vi.spyOn(process, "geteuid").mockReturnValue(1000);
  onTestFinished(() => {
    vi.restoreAllMocks();
  });
  const { advice } = unsafeIf("/var/lib/nixos-pull");
  expect(advice?.(0)).toContain("run this as root");
  expect(advice?.(0)).not.toContain("chown");
  expect(advice?.(1000)).toContain("chown 1000 /var/lib/nixos-pull");
});
