import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  CLOCK_TOLERANCE_MS,
  acceptManifest,
  memoryOf,
  mergeMemories,
  trustMemoriesSchema,
  type TrustMemories,
  type TrustMemory,
} from "../../../../agent/core/release/acceptance.ts";
import type { Manifest } from "../../../../agent/core/formats/manifest.ts";
import { failureOf } from "../../../support/failure.ts";
import { sampleDigest, sampleManifest } from "../../../support/sample-release.ts";

const CREATED = Date.parse("2026-01-31T12:00:00.000Z");
const EXPIRES = Date.parse("2026-02-28T12:00:00.000Z");
const NOW = new Date("2026-02-01T00:00:00.000Z");

function accept(
  manifest: Partial<Manifest>,
  context: { channel?: string; memories?: TrustMemories; now?: Date } = {},
  digest = sampleDigest("manifest"),
): TrustMemory {
  return acceptManifest(
    { manifest: sampleManifest(manifest), digest, signedBy: ["fleet-1"] },
    { channel: "stable", memories: [], now: NOW, ...context },
  );
}

function memory(sequence: number, changes: Partial<TrustMemory> = {}): TrustMemory {
  return {
    channel: "stable",
    sequence,
    digest: sampleDigest("manifest"),
    createdAt: "2026-01-31T12:00:00.000Z",
    ...changes,
  };
}

test("the first manifest of a channel is accepted and remembered", () => {
  expect(accept({})).toEqual(memory(7));
});

describe("sequences", () => {
  test("a higher one is accepted and becomes the memory", () => {
    expect(accept({ sequence: 9 }, { memories: [memory(7)] }).sequence).toBe(9);
  });

  test("the same manifest is accepted again", () => {
    expect(accept({}, { memories: [memory(7)] })).toEqual(memory(7));
  });

  test("an older one is a replay", () => {
    const failure = failureOf(() => accept({ sequence: 6 }, { memories: [memory(7)] }));
    expect(failure.code).toBe("SEQUENCE_REPLAYED");
    expect(failure.message).toBe("expected sequence 7 or higher, found 6");
  });

  test("the same one with other contents is a conflict", () => {
    const failure = failureOf(() =>
      accept({}, { memories: [memory(7)] }, sampleDigest("another manifest")),
    );
    expect(failure.code).toBe("SEQUENCE_CONFLICT");
    expect(failure.message).toContain(sampleDigest("manifest"));
    expect(failure.message).toContain(sampleDigest("another manifest"));
  });

  test("never go down over any series of manifests", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 20 }), { maxLength: 30 }), (sequences) => {
        let memories: TrustMemories = [];
        let highest = 0;
        for (const sequence of sequences) {
          const attempt = () => accept({ sequence }, { memories });
          if (sequence < highest) {
            expect(failureOf(attempt).code).toBe("SEQUENCE_REPLAYED");
          } else {
            memories = mergeMemories([...memories, attempt()]);
            highest = sequence;
          }
          expect(memoryOf(memories, "stable")?.sequence).toBe(highest);
        }
      }),
    );
  });

  test("are remembered for each channel apart", () => {
    const memories = [memory(7), memory(100, { channel: "canary" })];
    expect(accept({ sequence: 8 }, { memories }).sequence).toBe(8);
    expect(
      failureOf(() => accept({ sequence: 99, channel: "canary" }, { memories, channel: "canary" }))
        .code,
    ).toBe("SEQUENCE_REPLAYED");
  });
});

describe("another channel", () => {
  test("is refused, whatever is remembered of it", () => {
    for (const memories of [[], [memory(7)], [memory(7, { channel: "canary" })]]) {
      const failure = failureOf(() => accept({ channel: "canary" }, { memories }));
      expect(failure.code).toBe("CHANNEL_MISMATCH");
      expect(failure.message).toBe("expected a manifest of channel stable, found one of canary");
    }
  });

  test("is called that also where its sequence would be a replay here", () => {
    const failure = failureOf(() =>
      accept({ channel: "canary", sequence: 1 }, { memories: [memory(7)] }),
    );
    expect(failure.code).toBe("CHANNEL_MISMATCH");
  });
});

describe("expiry", () => {
  test("a manifest is good until the last millisecond", () => {
    expect(accept({}, { now: new Date(EXPIRES - 1) }).sequence).toBe(7);
  });

  test.each([0, 1, 365 * 24 * 3600 * 1000])("it is over %d ms after the limit", (late) => {
    const failure = failureOf(() => accept({}, { now: new Date(EXPIRES + late) }));
    expect(failure.code).toBe("MANIFEST_EXPIRED");
    expect(failure.transient).toBe(true);
    expect(failure.message).toContain("expired at 2026-02-28T12:00:00.000Z");
    expect(failure.message).toContain(new Date(EXPIRES + late).toISOString());
  });

  test("a manifest that was accepted in its time is stale after it, not wrong", () => {
    const attempt = () => accept({}, { memories: [memory(7)], now: new Date(EXPIRES) });
    expect(failureOf(attempt).code).toBe("MIRROR_STALE");
  });
});

describe("the clock", () => {
  test("may be behind a manifest's creation by the tolerance", () => {
    expect(accept({}, { now: new Date(CREATED - CLOCK_TOLERANCE_MS) }).sequence).toBe(7);
  });

  test("is doubted one millisecond beyond", () => {
    const failure = failureOf(() =>
      accept({}, { now: new Date(CREATED - CLOCK_TOLERANCE_MS - 1) }),
    );
    expect(failure.code).toBe("CLOCK_IMPLAUSIBLE");
    expect(failure.transient).toBe(true);
    expect(failure.message).toContain("was created at 2026-01-31T12:00:00.000Z");
    expect(failure.message).toContain("2026-01-31T11:44:59.999Z");
  });

  test("at its start in 1970 is doubted rather than taken for early", () => {
    expect(failureOf(() => accept({}, { now: new Date(0) })).code).toBe("CLOCK_IMPLAUSIBLE");
  });

  test("does not hide a replay", () => {
    const attempt = () => accept({ sequence: 6 }, { memories: [memory(7)], now: new Date(0) });
    expect(failureOf(attempt).code).toBe("SEQUENCE_REPLAYED");
  });

  test("is doubted where it is behind the last accepted manifest", () => {
    const memories = [memory(7, { createdAt: "2026-02-20T00:00:00.000Z" })];
    const failure = failureOf(() => accept({ sequence: 8 }, { memories, now: NOW }));
    expect(failure.code).toBe("CLOCK_BEHIND");
  });
});

describe("memories", () => {
  test("of a channel that was never followed do not exist", () => {
    expect(memoryOf([memory(7)], "canary")).toBeNull();
  });

  test("from several places give the highest sequence of each channel, in any order", () => {
    const memories = fc.array(
      fc.record({
        channel: fc.constantFrom("stable", "canary", "edge"),
        sequence: fc.integer({ min: 1, max: 50 }),
      }),
    );
    fc.assert(
      fc.property(memories, (facts) => {
        const merged = mergeMemories(facts.map((fact) => memory(fact.sequence, fact)));
        expect(new Set(merged.map(({ channel }) => channel)).size).toBe(merged.length);
        for (const channel of ["stable", "canary", "edge"]) {
          const own = facts.filter((fact) => fact.channel === channel);
          const highest = own.length > 0 ? Math.max(...own.map(({ sequence }) => sequence)) : null;
          expect(memoryOf(merged, channel)?.sequence ?? null).toBe(highest);
        }
        expect(mergeMemories(merged)).toEqual(merged);
      }),
    );
  });

  test("follow their schema, which knows no other fields", () => {
    expect(trustMemoriesSchema.safeParse([accept({})]).success).toBe(true);
    expect(trustMemoriesSchema.safeParse([{ ...accept({}), extra: 1 }]).success).toBe(false);
  });
});
