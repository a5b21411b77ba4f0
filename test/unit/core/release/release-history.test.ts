import { describe, expect, test } from "vitest";
import {
  encodeManifest,
  parseManifest,
  type Manifest,
  type SignedManifest,
} from "../../../../agent/core/formats/manifest.ts";
import {
  HISTORY_LENGTH,
  ancestryOf,
  historyAfter,
  knownRelease,
} from "../../../../agent/core/release/release-history.ts";
import { failureOf } from "../../../support/failure.ts";
import { sampleDigest, sampleManifest } from "../../../support/sample-release.ts";

function signed(changes: Partial<Manifest>): SignedManifest {
  const manifest = sampleManifest(changes);
  const digest = sampleDigest(`${manifest.epoch?.number ?? 0}-${manifest.sequence}`);
  return { manifest, digest, signedBy: ["fleet-1"] };
}

/** A chain of releases, each made after the one before. */
function chain(sequences: readonly number[]): SignedManifest[] {
  const releases: SignedManifest[] = [];
  for (const sequence of sequences) {
    const history = historyAfter(releases.at(-1) ?? null);
    releases.push(signed({ sequence, history }));
  }
  return releases;
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, at) => at + 1);

describe("the history of a release", () => {
  test("begins with the channel", () => {
    expect(historyAfter(null)).toEqual({ since: { sequence: 1 }, releases: [] });
  });

  test("names every release before it, also over numbers that none has", () => {
    const releases = chain([1, 2, 5, 6]);
    expect(releases.at(-1)?.manifest.history).toEqual({
      since: { sequence: 1 },
      releases: [1, 2, 5].map((sequence) => ({ sequence, digest: sampleDigest(`0-${sequence}`) })),
    });
  });

  test("forgets the oldest, and says since when it knows all", () => {
    const last = chain(upTo(HISTORY_LENGTH + 3)).at(-1);
    expect(last?.manifest.history.releases).toHaveLength(HISTORY_LENGTH);
    expect(last?.manifest.history.since).toEqual({ sequence: 3 });
    expect(last?.manifest.history.releases[0]?.sequence).toBe(3);
  });

  test("goes on over a new epoch", () => {
    const epoch = { number: 1, reason: "numbers" };
    const [first] = chain([9]);
    const second = signed({ epoch, sequence: 1, history: historyAfter(first ?? null) });
    expect(historyAfter(second)).toEqual({
      since: { sequence: 1 },
      releases: [
        { sequence: 9, digest: sampleDigest("0-9") },
        { epoch: 1, sequence: 1, digest: sampleDigest("1-1") },
      ],
    });
  });

  test("of more than a year of daily releases takes less than 40 kB", () => {
    const last = chain(upTo(HISTORY_LENGTH + 1)).at(-1);
    const bytes = JSON.stringify(last?.manifest.history).length;
    expect(HISTORY_LENGTH).toBeGreaterThan(366);
    expect(bytes).toBeGreaterThan(37_000);
    expect(bytes).toBeLessThan(40_000);
  });
});

describe("an earlier release", () => {
  const releases = chain([1, 2, 5, 6]);
  const last = releases.at(-1)?.manifest ?? sampleManifest();

  test("is named, another one, or not covered", () => {
    for (const release of releases.slice(0, -1)) {
      expect(ancestryOf(last, knownRelease(release))).toEqual({ kind: "named" });
    }
    const at = (sequence: number, digest = sampleDigest("x")) =>
      ancestryOf(last, { epoch: 0, sequence, digest });
    expect(at(2)).toEqual({ kind: "other", found: sampleDigest("0-2") });
    expect(at(3)).toEqual({ kind: "other", found: null });
    expect(at(6)).toEqual({ kind: "unknown" });
    expect(at(7)).toEqual({ kind: "unknown" });
  });

  test("before the history begins is not covered", () => {
    const manifest = sampleManifest({
      sequence: 9,
      history: { since: { sequence: 8 }, releases: [] },
    });
    const known = { epoch: 0, digest: sampleDigest("x") };
    expect(ancestryOf(manifest, { ...known, sequence: 7 })).toEqual({ kind: "unknown" });
    expect(ancestryOf(manifest, { ...known, sequence: 8 })).toEqual({ kind: "other", found: null });
  });
});

test.each<[string, Manifest["history"]]>([
  ["does not ascend", history(1, [3, 2])],
  ["has a number twice", history(1, [3, 3])],
  ["names what is before its beginning", history(4, [3])],
  ["names the release itself", history(1, [7])],
  ["begins after the release", history(8, [])],
])("a history that %s is refused", (_, wrong) => {
  const failure = failureOf(() =>
    parseManifest(encodeManifest(sampleManifest({ history: wrong }))),
  );
  expect(failure.code).toBe("MANIFEST_INVALID");
  expect(failure.message).toContain("history: expected earlier releases in their order");
});

function history(since: number, sequences: readonly number[]): Manifest["history"] {
  const releases = sequences.map((sequence) => ({ sequence, digest: sampleDigest("x") }));
  return { since: { sequence: since }, releases };
}
