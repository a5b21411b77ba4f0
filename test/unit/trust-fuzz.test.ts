import { readFile, readdir } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FUZZ_TARGETS, accepts, mutate, randomFrom } from "../support/fuzz-targets.ts";

const CORPUS = new URL("../corpus/", import.meta.url);

describe.each(FUZZ_TARGETS)("parser: $name", (target) => {
  test("takes what is genuine", async () => {
    const [genuine] = target.seeds;
    if (target.name !== "tar header" && genuine) {
      expect(await accepts(target, genuine)).toBe(true);
    }
  });

  test("survives any bytes", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 4096 }), async (bytes) => {
        await accepts(target, Buffer.from(bytes));
      }),
      { numRuns: 200 },
    );
  });

  test("survives any JSON", async () => {
    await fc.assert(
      fc.asyncProperty(fc.jsonValue(), async (value) => {
        await accepts(target, Buffer.from(JSON.stringify(value)));
      }),
      { numRuns: 200 },
    );
  });

  test("survives genuine input with changes", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer(), fc.constantFrom(...target.seeds), async (seed, input) => {
        await accepts(target, mutate(input, target.seeds, randomFrom(seed)));
      }),
      { numRuns: 400 },
    );
  });
});

test("survives the corpus", async () => {
  for (const name of await readdir(CORPUS)) {
    const input = await readFile(new URL(name, CORPUS));
    for (const target of FUZZ_TARGETS) await accepts(target, input);
  }
});
