import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { ImportStream } from "../../../../agent/host/fetch/import-stream.ts";
import type { QueuedPath } from "../../../../agent/core/transfer/import-queue.ts";

/** A row of paths of 10 bytes, each referring to the one before. */
const ROW: QueuedPath[] = Array.from({ length: 12 }, (_, at) => ({
  path: `p${at}`,
  file: `f${at}`,
  bytes: 10,
  references: at === 0 ? [] : [`p${at - 1}`],
}));

function streamOf(
  paths: readonly QueuedPath[],
  budget: number,
  importPaths: (names: string[]) => Promise<void> = () => sleep(1),
) {
  const seen = { batches: [] as string[][], failures: [] as unknown[], running: 0, most: 0 };
  const stream = new ImportStream({
    paths,
    budget,
    async importPaths(batch) {
      const names = batch.map(({ path }) => path);
      seen.batches.push(names);
      seen.most = Math.max(seen.most, ++seen.running);
      try {
        await importPaths(names);
      } finally {
        seen.running--;
      }
    },
    discard: () => Promise.resolve(),
    onFailure: (error) => seen.failures.push(error),
  });
  return { stream, seen };
}

test("paths are imported in order, one batch at a time, while others are staged", async () => {
  const { stream, seen } = streamOf(ROW, 40);
  let staged = 0;
  for (const { file, bytes } of ROW) {
    await stream.reserve(bytes);
    staged += bytes;
    expect(staged - 10 * stream.imported).toBeLessThanOrEqual(40);
    stream.arrived(file, bytes);
  }
  await stream.finish();
  expect(seen.batches.flat()).toEqual(ROW.map(({ path }) => path));
  expect(seen.batches.length).toBeGreaterThan(2);
  expect(seen.most).toBe(1);
});

test("an import begins once a quarter of the budget has come since the last one began", async () => {
  const { stream, seen } = streamOf(ROW, 80);
  const stage = async (...files: number[]): Promise<void> => {
    for (const at of files) {
      await stream.reserve(10);
      stream.arrived(`f${at}`, 10);
    }
  };
  await stage(0);
  expect(seen.batches).toEqual([]);
  await stage(1);
  expect(seen.batches).toEqual([["p0", "p1"]]);
  expect(await stream.settle()).toBeUndefined();
  await stage(2);
  expect(seen.batches).toHaveLength(1);
  await stage(3);
  expect(seen.batches).toEqual([
    ["p0", "p1"],
    ["p2", "p3"],
  ]);
});

test("one file that is larger than the budget has it to itself", async () => {
  const large = { path: "large", file: "large", bytes: 1_000, references: [] };
  const { stream, seen } = streamOf([...ROW.slice(0, 2), large], 40);
  for (const { file, bytes } of ROW.slice(0, 2)) {
    await stream.reserve(bytes);
    stream.arrived(file, bytes);
  }
  await stream.reserve(large.bytes);
  expect(seen.batches.flat()).toEqual(["p0", "p1"]);
  expect(stream.imported).toBe(2);
  stream.arrived("large", large.bytes);
  await stream.finish();
  expect(stream.imported).toBe(3);
});

test("nobody waits for room that no import can make", async () => {
  const { stream } = streamOf(ROW, 20);
  // The last first: nothing can be imported until the first is here.
  for (const { file, bytes } of ROW.toReversed()) {
    await stream.reserve(bytes);
    stream.arrived(file, bytes);
  }
  await stream.finish();
  expect(stream.imported).toBe(ROW.length);
});

test("an import that fails is told at once, and to everybody who asks later", async () => {
  const broken = new Error("disk full");
  const { stream, seen } = streamOf(ROW, 20, () => Promise.reject(broken));
  await stream.reserve(10);
  stream.arrived("f0", 10);
  expect(await stream.settle()).toBe(broken);
  expect(seen.failures).toEqual([broken]);
  await expect(stream.reserve(10)).rejects.toBe(broken);
  await expect(stream.finish()).rejects.toBe(broken);
  expect(seen.batches).toHaveLength(1);
});

test("room that was reserved in vain is given back", async () => {
  const { stream } = streamOf(ROW, 20);
  await stream.reserve(20);
  stream.cancel(20);
  await stream.reserve(20);
  expect(stream.imported).toBe(0);
});
