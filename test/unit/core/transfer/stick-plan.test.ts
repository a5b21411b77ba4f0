import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { readIndex, type ArchiveContents } from "../../../../agent/core/formats/archive-index.ts";
import { covers } from "../../../../agent/core/formats/byte-ranges.ts";
import { DEFAULT_GAP, planRuns } from "../../../../agent/core/transfer/fetch-plan.ts";
import { narFileName } from "../../../../agent/core/formats/narinfo.ts";
import {
  mergeNeeds,
  needOf,
  type ClosureNeed,
} from "../../../../agent/core/transfer/stick-plan.ts";
import { TAR_BLOCK } from "../../../../agent/core/formats/tar-layout.ts";
import { SAMPLE_KEY, sampleArchives, type SampleArchive } from "../../../support/sample-archive.ts";

// Every run signs and verifies a whole archive.
fc.configureGlobal({ numRuns: 40 });

function contentsOf({ compressed, release }: SampleArchive): ArchiveContents {
  return readIndex(compressed, release, [SAMPLE_KEY.publicKey]);
}

/** An archive, paths that a host reported, and some that it has got since. */
const cases = sampleArchives.chain((archive) => {
  const paths = archive.index.paths.map(({ path }) => path);
  return fc.record({
    archive: fc.constant(archive),
    held: fc.subarray(paths),
    since: fc.subarray(paths),
    limit: fc.constantFrom(Infinity, 100, 3000),
  });
});

function needFor(archive: SampleArchive, held: readonly string[] | null): ClosureNeed {
  return needOf(contentsOf(archive), archive.release.archive.index.size, {
    held: held && new Set(held),
    deltas: false,
    parts: new Map(),
  });
}

function wantedNars(contents: ArchiveContents, held: readonly string[]): Map<string, number> {
  const wanted = contents.narInfos.filter(({ storePath }) => !held.includes(storePath));
  return new Map(
    wanted.map(({ fileSha256, compression }) => [narFileName(fileSha256, compression), 0]),
  );
}

describe("for any archive, and any paths that a host has", () => {
  test("whatever its agent reads lies on the stick, also where it has more by now", () => {
    fc.assert(
      fc.property(cases, ({ archive, held, since, limit }) => {
        const contents = contentsOf(archive);
        const [need] = needFor(archive, held).archives;
        if (!need?.ranges) return;
        const { ranges } = need;
        const index = archive.release.archive.index.size;
        expect(covers(ranges, { from: TAR_BLOCK, to: TAR_BLOCK + index })).toBe(true);
        const wanted = wantedNars(contents, [...held, ...since]);
        for (const run of planRuns(contents, wanted, DEFAULT_GAP, limit)) {
          expect(covers(ranges, run)).toBe(true);
        }
      }),
    );
  });

  test("what is to be verified is what the host lacks", () => {
    fc.assert(
      fc.property(cases, ({ archive, held }) => {
        const contents = contentsOf(archive);
        const [need] = needFor(archive, held).archives;
        if (!need?.ranges) return;
        const names = need.members.map(({ name }) => name).sort();
        expect(names).toEqual([...wantedNars(contents, held).keys()].sort());
      }),
    );
  });

  test("two hosts' needs together cover each of them", () => {
    fc.assert(
      fc.property(cases, ({ archive, held, since }) => {
        const [a] = needFor(archive, held).archives;
        const [b] = needFor(archive, since).archives;
        if (!a || !b) throw new Error("an archive is always needed");
        const both = mergeNeeds(a, b).ranges;
        if (both === null) {
          expect([a.ranges, b.ranges]).toContain(null);
          return;
        }
        for (const range of [...(a.ranges ?? []), ...(b.ranges ?? [])]) {
          expect(covers(both, range)).toBe(true);
        }
      }),
    );
  });
});

test("a host of which nothing is known gets the archive as it is", () => {
  const [archive] = fc.sample(sampleArchives, { numRuns: 1, seed: 1 });
  if (!archive) throw new Error("no sample");
  const need = needFor(archive, null);
  expect(need.members).toBeNull();
  expect(need.archives.map(({ ranges }) => ranges)).toEqual([null]);
});
