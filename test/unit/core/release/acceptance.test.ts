import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  CLOCK_TOLERANCE_MS,
  MAX_EPOCH_STEP,
  acceptManifest,
  memoryOf,
  mergeMemories,
  rememberedPosition,
  trustMemoriesSchema,
  type AcceptanceContext,
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
  context: Partial<AcceptanceContext> = {},
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
    expect(failure.message).toBe(
      `sequence 7 was accepted with digest ${sampleDigest("manifest")}, ` +
        `found ${sampleDigest("another manifest")}`,
    );
  });

  describe("never aside", () => {
    const accepted = sampleDigest("manifest");
    const history = (
      since: number,
      releases: readonly [number, string][],
      epoch?: number,
    ): Manifest["history"] => ({
      since: { ...(epoch !== undefined && { epoch }), sequence: since },
      releases: releases.map(([sequence, digest]) => ({
        ...(epoch !== undefined && { epoch }),
        ...{ sequence, digest },
      })),
    });
    const memories = [memory(3)];

    test("a release that names the accepted one is followed", () => {
      const after = history(1, [[3, accepted]]);
      expect(accept({ sequence: 4, history: after }, { memories }).sequence).toBe(4);
    });

    test("one that comes after another release of that number is refused", () => {
      const other = sampleDigest("another manifest");
      const after = history(2, [
        [2, accepted],
        [3, other],
      ]);
      const failure = failureOf(() => accept({ sequence: 5, history: after }, { memories }));
      expect(failure.code).toBe("SEQUENCE_FORKED");
      expect(failure.message).toContain(`with digest ${accepted}`);
      expect(failure.message).toContain(`one of that number with digest ${other}`);
    });

    test("one that comes after none of that number is refused", () => {
      const after = history(2, [[2, accepted]]);
      const failure = failureOf(() => accept({ sequence: 5, history: after }, { memories }));
      expect(failure.code).toBe("SEQUENCE_FORKED");
      expect(failure.message).toContain("comes after none of that number");
    });

    test("a channel that begins anew at a higher number is refused", () => {
      const failure = failureOf(() =>
        accept({ sequence: 100, history: history(1, []) }, { memories }),
      );
      expect(failure.code).toBe("SEQUENCE_FORKED");
    });

    test("a host that was away for longer than the history goes back is let in", () => {
      const after = history(4, [[4, sampleDigest("a later one")]]);
      expect(accept({ sequence: 5, history: after }, { memories }).sequence).toBe(5);
    });

    test("a new epoch is the way out", () => {
      const epoch = { number: 1, reason: "the mirror was set back" };
      const after = history(1, []);
      expect(accept({ epoch, sequence: 1, history: after }, { memories }).epoch).toBe(1);
    });

    test("within an epoch it holds again", () => {
      const epoch = { number: 2, reason: "numbers" };
      const [here] = [memory(3, { epoch: 2 })];
      const of = (releases: [number, string][]): Partial<Manifest> => ({
        ...{ epoch, sequence: 5, history: history(1, releases, 2) },
      });
      expect(accept(of([[3, accepted]]), { memories: [here] }).sequence).toBe(5);
      expect(failureOf(() => accept(of([[3, sampleDigest("x")]]), { memories: [here] })).code).toBe(
        "SEQUENCE_FORKED",
      );
      // The same number of the epoch before is another release.
      const before = { since: { sequence: 1 }, releases: [{ sequence: 3, digest: accepted }] };
      expect(
        failureOf(() => accept({ epoch, sequence: 5, history: before }, { memories: [here] })).code,
      ).toBe("SEQUENCE_FORKED");
    });
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
    expect(failure.message).toBe(
      "release 7 expired at 2026-02-28T12:00:00.000Z, this host's clock says " +
        new Date(EXPIRES + late).toISOString(),
    );
  });

  test("a manifest that was accepted in its time is stale after it, not wrong", () => {
    const attempt = () => accept({}, { memories: [memory(7)], now: new Date(EXPIRES) });
    expect(failureOf(attempt).code).toBe("MIRROR_STALE");
    expect(failureOf(attempt).message).toMatch(/Z; this host stays what it is$/);
    const newer = () =>
      accept({ sequence: 8 }, { memories: [memory(7)], now: new Date(EXPIRES) }, sampleDigest("8"));
    expect(failureOf(newer).code).toBe("MANIFEST_EXPIRED");
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
    expect(failure.message).toBe(
      "release 7 was created at 2026-01-31T12:00:00.000Z, " +
        "this host's clock says 2026-01-31T11:44:59.999Z",
    );
  });

  test("at its start in 1970 is doubted rather than taken for early", () => {
    expect(failureOf(() => accept({}, { now: new Date(0) })).code).toBe("CLOCK_IMPLAUSIBLE");
  });

  test("does not hide a replay", () => {
    const attempt = () => accept({ sequence: 6 }, { memories: [memory(7)], now: new Date(0) });
    expect(failureOf(attempt).code).toBe("SEQUENCE_REPLAYED");
  });

  const LATER = Date.parse("2026-02-20T00:00:00.000Z");
  const memories = [memory(7, { createdAt: new Date(LATER).toISOString() })];

  test.each([
    ["the last accepted manifest", { memories }, "since a release of that time was accepted"],
    ["its own agent's build", { builtAt: new Date(LATER) }, "since this agent was built then"],
    [
      "both, and the later one counts",
      { memories: [memory(7)], builtAt: new Date(LATER) },
      "since this agent was built then",
    ],
    [
      "both at the same time",
      { memories, builtAt: new Date(LATER) },
      "since a release of that time was accepted",
    ],
  ])("may be behind %s by the tolerance, and is doubted beyond it", (_, context, words) => {
    const floor = LATER - CLOCK_TOLERANCE_MS;
    expect(accept({ sequence: 8 }, { ...context, now: new Date(floor) }).sequence).toBe(8);
    const now = new Date(floor - 1);
    const failure = failureOf(() => accept({ sequence: 8 }, { ...context, now }));
    expect(failure.code).toBe("CLOCK_BEHIND");
    expect(failure.message).toBe(
      "expected 2026-02-20T00:00:00.000Z or later, " +
        `${words}; this host's clock says 2026-02-19T23:44:59.999Z`,
    );
  });

  test("is not asked if the policy is to ignore it, and the order still counts", () => {
    const ignoring = { clock: "ignore", memories } as const;
    for (const now of [new Date(0), new Date("2100-01-01T00:00:00.000Z")]) {
      expect(accept({ sequence: 8 }, { ...ignoring, now }).sequence).toBe(8);
      const replay = () => accept({ sequence: 6 }, { ...ignoring, now });
      expect(failureOf(replay).code).toBe("SEQUENCE_REPLAYED");
    }
    const strict = { clock: "strict", memories, now: new Date(0) } as const;
    expect(failureOf(() => accept({ sequence: 8 }, strict)).code).toBe("CLOCK_BEHIND");
  });
});

describe("epochs", () => {
  const epoch = (number: number) => ({ number, reason: "key lost" });

  test("restart the numbering, and are remembered", () => {
    const accepted = accept({ sequence: 1, epoch: epoch(2) }, { memories: [memory(7)] });
    expect(accepted).toEqual(memory(1, { epoch: 2 }));
    expect(rememberedPosition(accepted)).toEqual({ epoch: 2, sequence: 1 });
    expect(rememberedPosition(memory(7))).toEqual({ epoch: 0, sequence: 7 });
    expect(accept({ sequence: 2, epoch: epoch(2) }, { memories: [accepted] }).sequence).toBe(2);
  });

  test("never go down, however high the sequence", () => {
    const memories = [memory(1, { epoch: 2 })];
    for (const manifest of [{ sequence: 100 }, { sequence: 100, epoch: epoch(1) }]) {
      const failure = failureOf(() => accept(manifest, { memories }));
      expect(failure.code).toBe("SEQUENCE_REPLAYED");
      expect(failure.message).toContain("expected sequence 1 of epoch 2 or higher, found 100");
    }
  });

  test("go up by a bounded step, with and without a memory", () => {
    for (const [memories, from] of [
      [[], 0],
      [[memory(7)], 0],
      [[memory(7, { epoch: 5 })], 5],
    ] as const) {
      const highest = from + MAX_EPOCH_STEP;
      const context = { memories: [...memories] };
      expect(accept({ epoch: epoch(highest) }, context).epoch).toBe(highest);
      const failure = failureOf(() => accept({ epoch: epoch(highest + 1) }, context));
      expect(failure.code).toBe("EPOCH_IMPLAUSIBLE");
      expect(failure.message).toBe(`expected an epoch of at most ${highest}, found ${highest + 1}`);
    }
  });

  test("count before the sequence when memories are merged", () => {
    const [low, high] = [memory(9), memory(1, { epoch: 1 })];
    expect(mergeMemories([low, high])).toEqual([high]);
    expect(mergeMemories([high, low])).toEqual([high]);
  });

  test("of the same place and other contents keep what was remembered first", () => {
    const other = memory(7, { digest: sampleDigest("other") });
    expect(mergeMemories([memory(7), other])).toEqual([memory(7)]);
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
