import { appendFile, mkdir, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { History, type HistoryEntry } from "../../../agent/effects/history.ts";
import { sampleDigest, samplePath } from "../../support/sample-release.ts";
import { temporaryDirectory } from "../../support/temporary.ts";

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

  // Defect: the next entry is put on the torn line's end, and both are lost.
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

  test("exists also where only the older one is left", async () => {
    const { history, directory } = await emptyHistory();
    await writeFile(join(directory, "history.older.jsonl"), "");
    expect(await history.exists()).toBe(true);
  });
});

test("a history that cannot be read is an error and not an empty one", async () => {
  const { history, file } = await emptyHistory();
  await mkdir(file);
  await expect(history.read()).rejects.toMatchObject({ code: "EISDIR" });
});
