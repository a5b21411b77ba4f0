import { readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { FetchSignFile } from "../../../../agent/effects/state/fetch-sign.ts";
import { notOnDisk, recordDiskOperations } from "../../../support/disk-operations.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

test("how far a fetch is can be read by others, with its rate", async () => {
  const directory = await temporaryDirectory();
  let now = 0;
  const sign = new FetchSignFile(directory, () => now);
  sign.tell({ received: 0, total: 1000 });
  await vi.waitUntil(async () => (await sign.read()) !== null);
  now = 4000;
  sign.tell({ received: 400, total: 1000 });
  await vi.waitUntil(async () => (await sign.read())?.received === 400);
  expect(await new FetchSignFile(directory).read()).toEqual({
    process: process.pid,
    at: expect.stringMatching(/Z$/),
    ...{ received: 400, total: 1000, rate: 100 },
  });
  expect(await readdir(directory)).toEqual(["fetch.json"]);
});

test("it is written seldom", async () => {
  const directory = await temporaryDirectory();
  let now = 0;
  const sign = new FetchSignFile(directory, () => now);
  sign.tell({ received: 1, total: 9 });
  await vi.waitUntil(async () => (await sign.read())?.received === 1);
  const { ino } = await stat(join(directory, "fetch.json"));
  for (now = 1; now < 2000; now++) sign.tell({ received: 2, total: 9 });
  expect((await stat(join(directory, "fetch.json"))).ino).toBe(ino);
});

test("it is never flushed to the disk: nothing depends on it", async () => {
  const directory = await temporaryDirectory();
  const operations = await recordDiskOperations();
  const sign = new FetchSignFile(directory);
  sign.tell({ received: 1, total: 9 });
  await vi.waitUntil(async () => (await sign.read()) !== null);
  expect(operations.filter(({ kind }) => kind === "sync")).toEqual([]);
  expect(notOnDisk(operations)).not.toEqual([]);
});

test("what is not there or is damaged says nothing, and what cannot be written is no error", async () => {
  const directory = await temporaryDirectory();
  const nowhere = new FetchSignFile(join(directory, "nowhere"));
  nowhere.tell({ received: 1, total: 9 });
  expect(await nowhere.read()).toBeNull();
  for (const text of ["", "{", `{"process":1}`, "x".repeat(10_000)]) {
    await writeFile(join(directory, "fetch.json"), text);
    expect(await new FetchSignFile(directory).read()).toBeNull();
  }
});
