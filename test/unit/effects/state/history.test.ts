import { appendFile, mkdir, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { memoryOf, mergeMemories } from "../../../../agent/core/release/acceptance.ts";
import { History } from "../../../../agent/effects/state/history.ts";
import type { HistoryEntry } from "../../../../agent/core/update/history-entry.ts";
import { scriptOnFullDisk } from "../../../support/full-disk.ts";
import { sampleDigest, samplePath } from "../../../support/sample-release.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

function entry(sequence: number, changes: Partial<HistoryEntry> = {}): HistoryEntry {
  return {
    ...{ at: "2026-02-01T00:00:00.000Z", event: "HealthConfirmed", state: "Committed" },
    ...{ sequence, toplevel: samplePath("nixos-system-web1-1"), mode: "switch" },
    ...changes,
  };
}

async function emptyHistory(): Promise<{ history: History; directory: string; file: string }> {
  const directory = await temporaryDirectory();
  return { history: new History(directory), directory, file: join(directory, "history.jsonl") };
}

test("nothing was ever written to a new directory, or to none", async () => {
  const { history, directory } = await emptyHistory();
  expect(await history.exists()).toBe(false);
  expect(await history.read()).toEqual([]);
  expect(await new History(join(directory, "missing")).exists()).toBe(false);
});

test("entries are read in the order in which they were written, with all their fields", async () => {
  const { history } = await emptyHistory();
  const trust = {
    ...{ channel: "stable", sequence: 2, digest: sampleDigest("2") },
    createdAt: "2026-01-31T12:00:00.000Z",
  };
  const entries = [
    entry(1, { lastLines: ["one", "two\u0007"], code: "HEALTH_FAILED", message: "an\nother line" }),
    entry(2, { trust }),
    { at: "2026-02-01T00:00:00.000Z", event: "LeftoversRemoved", state: "Idle" },
  ];
  for (const one of entries) await history.append(one);
  expect(await history.read()).toEqual(entries);
  expect(await history.exists()).toBe(true);
});

test("each entry is one line of a file that only its owner may read", async () => {
  const { history, file } = await emptyHistory();
  await history.append(entry(1, { message: "a\nb" }));
  await history.append(entry(2));
  expect((await readFile(file, "utf8")).split("\n")).toHaveLength(3);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
});

test("another process's entries are kept when both append", async () => {
  const { history, directory } = await emptyHistory();
  const others = new History(directory);
  await Promise.all(
    Array.from({ length: 20 }, (_, at) => (at % 2 === 0 ? history : others).append(entry(at + 1))),
  );
  const sequences = (await history.read()).map(({ sequence }) => sequence ?? 0);
  expect(sequences.toSorted((a, b) => a - b)).toEqual(
    Array.from({ length: 20 }, (_, at) => at + 1),
  );
});

describe("a line that cannot be read", () => {
  test("because a power cut tore it is left out, wherever it was torn", async () => {
    const { history, file } = await emptyHistory();
    await history.append(entry(1));
    await history.append(entry(2));
    const whole = await readFile(file, "utf8");
    const first = whole.indexOf("\n") + 1;
    for (let length = first; length < whole.length - 1; length += 10) {
      await writeFile(file, whole.slice(0, length));
      expect(await history.read()).toEqual([entry(1)]);
    }
  });

  test("because a power cut tore it does not take the next entry with it", async () => {
    const { history, file } = await emptyHistory();
    await history.append(entry(1));
    await appendFile(file, '{"at":"2026-02-01T0');
    await history.append(entry(2));
    expect((await history.read()).map(({ sequence }) => sequence)).toEqual([1, 2]);
  });

  test.each(["{}", "null", "text", '{"at":"yesterday","event":"x","state":"y"}', "\u0000\u0000"])(
    "because it is %j is left out, and those around it are not",
    async (line) => {
      const { history, file } = await emptyHistory();
      await history.append(entry(1));
      await appendFile(file, `${line}\n`);
      await history.append(entry(2));
      expect((await history.read()).map(({ sequence }) => sequence)).toEqual([1, 2]);
    },
  );
});

describe("a file that has grown large", () => {
  const filler = "x".repeat(400_000);

  test("is kept as the older one, and both are read", async () => {
    const { history, directory } = await emptyHistory();
    for (let sequence = 1; sequence <= 4; sequence++) {
      await history.append(entry(sequence, { message: filler }));
    }
    expect((await readdir(directory)).sort()).toEqual(["history.jsonl", "history.older.jsonl"]);
    expect((await history.read()).map(({ sequence }) => sequence)).toEqual([1, 2, 3, 4]);
  });

  test("replaces the older one, so that the two stay bounded", async () => {
    const { history, directory } = await emptyHistory();
    for (let sequence = 1; sequence <= 8; sequence++) {
      await history.append(entry(sequence, { message: filler }));
    }
    expect((await history.read()).map(({ sequence }) => sequence)).toEqual([4, 5, 6, 7, 8]);
    let bytes = 0;
    for (const name of await readdir(directory)) bytes += (await stat(join(directory, name))).size;
    expect(bytes).toBeLessThan(3_000_000);
  });

  test("hands on what was accepted, however often it is replaced", async () => {
    const { history } = await emptyHistory();
    const memory = (channel: string, sequence: number) => ({
      ...{ channel, sequence, digest: sampleDigest(`${sequence}`) },
      createdAt: "2026-01-31T12:00:00.000Z",
    });
    await history.append(entry(1, { trust: memory("canary", 100) }));
    await history.append(entry(1, { trust: memory("stable", 7) }));
    await history.append(entry(2, { trust: memory("stable", 8) }));
    for (let sequence = 3; sequence <= 14; sequence++) {
      await history.append(entry(sequence, { message: filler }));
    }
    const remembered = mergeMemories((await history.read()).flatMap(({ trust }) => trust ?? []));
    expect(memoryOf(remembered, "canary")).toEqual(memory("canary", 100));
    expect(memoryOf(remembered, "stable")).toEqual(memory("stable", 8));
  });

  test("exists also where only the older one is left", async () => {
    const { history, directory } = await emptyHistory();
    await writeFile(join(directory, "history.older.jsonl"), "");
    expect(await history.exists()).toBe(true);
  });
});

test("a history that cannot be read has no entries, and is renamed for the next one", async () => {
  const { history, file } = await emptyHistory();
  await mkdir(file);
  expect(await history.read()).toEqual([]);
  expect(await history.findLast("x")).toBeNull();
  const entry = { at: "2026-02-01T00:00:00.000Z", event: "x", state: "y" };
  await history.append(entry);
  expect(await history.read()).toEqual([entry]);
  const names = await readdir(dirname(file));
  expect(names.some((name) => /^history\.jsonl\.damaged-[0-9a-f]{12}$/.test(name))).toBe(true);
});

test("the last write of the record is the newest that an entry names", async () => {
  const { history } = await emptyHistory();
  expect(await history.lastWrite()).toBe(0);
  const entry = { at: "2026-02-01T00:00:00.000Z", event: "x", state: "y" };
  for (const writes of [1, 2, 7]) await history.append({ ...entry, writes });
  await history.append(entry);
  expect(await history.lastWrite()).toBe(7);
});

test("an entry that the disk has no room for is an error", async () => {
  const directory = await temporaryDirectory();
  const run = await scriptOnFullDisk(
    directory,
    `
      import { History } from "./agent/effects/state/history.ts";
      const message = "x".repeat(100_000);
      void new History(process.argv[2] ?? "")
        .append({ at: "2026-02-01T00:00:00.000Z", event: "x", state: "y", message })
        .then(() => console.log("written"), (error) => console.log(error.code));
    `,
  );
  expect(run(64, directory)).toBe("EFBIG");
});

test("entries come newest first, over both files, without those that a power cut tore", async () => {
  const { history, directory, file } = await emptyHistory();
  const all = async (): Promise<(number | undefined)[]> => {
    const found: (number | undefined)[] = [];
    for await (const { sequence } of history.newestFirst()) found.push(sequence);
    return found;
  };
  expect(await all()).toEqual([]);
  await history.append(entry(1));
  await history.append(entry(2));
  await writeFile(join(directory, "history.older.jsonl"), await readFile(file));
  await writeFile(file, "");
  await history.append(entry(3));
  await appendFile(file, JSON.stringify(entry(4)).slice(0, -10));
  expect(await all()).toEqual([3, 2, 1]);
});

describe("the last entry of an event", () => {
  const found = async (history: History, event: string): Promise<number | undefined> =>
    (await history.findLast(event))?.sequence;

  test("is found from the end, in the older file too, and is null where there is none", async () => {
    const { history, directory, file } = await emptyHistory();
    expect(await history.findLast("ClosureImported")).toBeNull();
    await history.append(entry(1, { event: "ClosureImported" }));
    await history.append(entry(2, { event: "ClosureImported" }));
    await history.append(entry(3));
    expect(await found(history, "ClosureImported")).toBe(2);
    expect(await found(history, "Closure")).toBeUndefined();
    await writeFile(join(directory, "history.older.jsonl"), await readFile(file));
    await writeFile(file, "");
    await history.append(entry(4));
    expect(await found(history, "ClosureImported")).toBe(2);
  });

  test("is not one that a power cut tore, or whose name stands in another one's message", async () => {
    const { history, file } = await emptyHistory();
    await history.append(entry(1, { event: "ClosureImported" }));
    await history.append(entry(2, { message: '"ClosureImported"' }));
    await appendFile(file, JSON.stringify(entry(3, { event: "ClosureImported" })).slice(0, -10));
    expect(await found(history, "ClosureImported")).toBe(1);
  });

  test("is what reading everything finds, wherever blocks of the file end", async () => {
    const { history, file } = await emptyHistory();
    const names = ["ClosureImported", "Häläri", "FetchBegun"];
    const entries = Array.from({ length: 2_000 }, (_, at) =>
      entry(at + 1, { event: names[at % 3] ?? "", message: "ü€𐍈".repeat(at % 41) }),
    );
    await writeFile(file, entries.map((it) => `${JSON.stringify(it)}\n`).join(""));
    expect((await stat(file)).size).toBeGreaterThan(4 * 64 * 1024);
    for (const last of [2_000, 1_200, 700, 3, 1]) {
      const kept = entries.map((it, at) => (at < last ? it : { ...it, event: "Other" }));
      await writeFile(file, kept.map((it) => `${JSON.stringify(it)}\n`).join(""));
      for (const name of names) {
        const expected = kept.findLast(({ event }) => event === name) ?? null;
        expect(await history.findLast(name)).toEqual(expected);
      }
    }
  });

  test("is not looked for beyond what rotation lets a file become", async () => {
    const { history, file } = await emptyHistory();
    await history.append(entry(1, { event: "ClosureImported" }));
    await appendFile(file, `${"x".repeat(3 * 1024 * 1024)}\n`);
    expect(await history.findLast("ClosureImported")).toBeNull();
  });
});
