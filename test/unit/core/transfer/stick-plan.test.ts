import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  isNarMember,
  readIndex,
  type ArchiveContents,
  type IndexedPath,
} from "../../../../agent/core/formats/archive-index.ts";
import { covers } from "../../../../agent/core/formats/byte-ranges.ts";
import { DEFAULT_GAP, planRuns } from "../../../../agent/core/transfer/fetch-plan.ts";
import { narFileName } from "../../../../agent/core/formats/narinfo.ts";
import {
  DELTA_GAP,
  countMembers,
  membersWithin,
  mergeNeeds,
  needOf,
  rangeOf,
  type ArchiveNeed,
  type ClosureNeed,
  type NeedOptions,
} from "../../../../agent/core/transfer/stick-plan.ts";
import { TAR_BLOCK } from "../../../../agent/core/formats/tar-layout.ts";
import {
  SAMPLE_KEY,
  chainArchive,
  sampleArchives,
  type SampleArchive,
} from "../../../support/sample-archive.ts";

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

describe("of a chain of three NARs, whose first lies in another archive", () => {
  const chain = chainArchive();
  const whole = contentsOf(chain);
  const [library, program, system] = whole.members.filter(isNarMember);
  if (!library || !program || !system) throw new Error("no NARs");
  const other = { sha256: "ab".repeat(32), size: 1_000_000 };
  const shared = { ...library, headerOffset: 512 };
  const indexSize = chain.release.archive.index.size;
  const [libraryPath, programPath, systemPath] = whole.index.paths.map(({ path }) => path) as [
    ...[string, string, string],
  ];
  /** The path's old hash, and what the host has under it. */
  const oldHash = "0".repeat(32);
  const oldProgram = oldHash + programPath.slice(32);
  const delta = (offset: number, size: number) => ({
    ...{ base: 0, archive: 0, offset, size, sha256: String(offset).padStart(64, "0") },
  });

  /** The contents with these deltas for the second path, in the other archive. */
  function withDeltas(...deltas: ReturnType<typeof delta>[]): ArchiveContents {
    const paths = whole.index.paths.map((entry): IndexedPath =>
      entry.path === programPath ? { ...entry, was: [oldHash], deltas } : entry,
    );
    return {
      ...whole,
      index: { ...whole.index, paths, archives: [other] },
      members: whole.members.filter(({ name }) => name !== library?.name),
      elsewhere: [{ archive: other, nars: [shared] }],
    };
  }

  const contents = withDeltas(delta(50_000, 100), delta(50_200, 80));
  const need = (options: Partial<NeedOptions>, of = contents): ClosureNeed =>
    needOf(of, indexSize, { held: null, deltas: false, parts: new Map(), ...options });
  const namesOf = ({ members, deltas }: ArchiveNeed): [string[], number[]] => [
    ...([members.map(({ name }) => name), deltas.map(({ size }) => size)] as const),
  ];
  const indexEnd = Math.ceil((512 + indexSize) / 512) * 512;

  test("everything is needed whole if nothing is known of the host", () => {
    expect(need({})).toEqual({
      archives: [contents, other].map(({ sha256, size }) => ({
        ...{ sha256, size, ranges: null, members: [], deltas: [] },
      })),
      members: null,
    });
  });

  test("of each archive what the host lacks is needed, and the index", () => {
    const { archives, members } = need({ held: new Set([systemPath]) });
    const [own, foreign] = archives;
    expect(own?.ranges).toEqual([{ from: 0, to: indexEnd }, rangeOf(program)]);
    expect(foreign?.ranges).toEqual([rangeOf(shared)]);
    expect(archives.map(namesOf)).toEqual([
      [[program.name], []],
      [[library.name], []],
    ]);
    // And both deltas lie in neither.
    expect(members).toBe(2);
  });

  test("nothing but the index is needed by a host that has everything", () => {
    const held = new Set([libraryPath, programPath, systemPath]);
    expect(need({ held })).toMatchObject({
      archives: [{ ranges: [{ from: 0, to: indexEnd }] }, { ranges: [] }],
      members: 0,
    });
  });

  test("its own archive is whole if all of it is wanted, but not the others", () => {
    const { archives, members } = need({ held: new Set([libraryPath]) });
    expect(archives.map(({ ranges }) => ranges)).toEqual([null, []]);
    expect(members).toBe(2);
  });

  test("deltas stand in for a path of which the host has a base, all of them", () => {
    const held = new Set([libraryPath, systemPath, oldProgram]);
    const { archives, members } = need({ held, deltas: true });
    expect(archives.map(namesOf)).toEqual([
      [[], []],
      [[], [80, 100]],
    ]);
    // They are read together with the 100 bytes between them.
    expect(archives[1]?.ranges).toEqual([{ from: 50_000, to: 50_280 }]);
    expect(members).toBe(2);
    const apart = withDeltas(delta(50_000, 100), delta(50_101 + DELTA_GAP, 80));
    expect(need({ held, deltas: true }, apart).archives[1]?.ranges).toHaveLength(2);
    const near = withDeltas(delta(50_000, 100), delta(50_100 + DELTA_GAP, 80));
    expect(need({ held, deltas: true }, near).archives[1]?.ranges).toHaveLength(1);
  });

  test("deltas do not, without a base, without leave, or if the path itself is there", () => {
    const nothing = [[program.name], []];
    const without = new Set([libraryPath, systemPath]);
    expect(need({ held: without, deltas: true }).archives.map(namesOf)[0]).toEqual(nothing);
    const held = new Set([...without, oldProgram]);
    expect(need({ held, deltas: false }).archives.map(namesOf)[0]).toEqual(nothing);
    const all = new Set([...held, programPath]);
    expect(need({ held: all, deltas: true }).archives.map(namesOf)).toEqual([
      [[], []],
      [[], []],
    ]);
  });

  test("a part of an archive is passed on as it came, with what lies in it", () => {
    const part = [{ from: 512, to: 512 + 1_536 }];
    const parts = new Map([[other.sha256, part]]);
    expect(need({ parts }).archives[1]).toMatchObject({ ranges: part, members: [shared] });
    expect(need({ parts }).members).toBe(3);
    const short = new Map([[other.sha256, [{ from: 512, to: 512 + 1_535 }]]]);
    expect(need({ parts: short }).archives[1]?.members).toEqual([]);
    const held = new Set([oldProgram]);
    expect(namesOf(need({ parts, held, deltas: true }).archives[1]!)).toEqual([
      [library.name],
      [80, 100],
    ]);
  });

  test("what lies in parts of archives is found, counted and missed", () => {
    const within = (parts: [string, ArchiveNeed["ranges"]][]) => {
      const { nars, deltas, count, missing } = membersWithin(contents, new Map(parts));
      const all = [nars, deltas].map((some) => [...some.values()].flat().map(({ size }) => size));
      return [...all, count, missing];
    };
    const sizes = [program, system].map(({ size }) => size);
    expect(within([])).toEqual([[], [], 0, 3]);
    expect(within([[contents.sha256, null]])).toEqual([sizes, [], 2, 1]);
    expect(within([[other.sha256, null]])).toEqual([[shared.size], [80, 100], 3, 2]);
    const some = [rangeOf(shared), { from: 50_000, to: 50_279 }];
    expect(within([[other.sha256, some]])).toEqual([[shared.size], [100], 2, 2]);
    expect(countMembers(contents, [{ sha256: other.sha256, ranges: some }])).toBe(2);
  });
});

describe("two hosts' needs as one", () => {
  const [first, second] = contentsOf(chainArchive()).members.filter(isNarMember);
  if (!first || !second) throw new Error("no NARs");
  const common = { sha256: "ab".repeat(32), size: 100_000 };
  const some = (offset: number) => ({
    ...{ base: "/nix/store/x", replacements: new Map(), archive: common, size: 5 },
    ...{ offset, sha256: String(offset) },
  });
  const a: ArchiveNeed = {
    ...{ ...common, ranges: [{ from: 10, to: 20 }], members: [second], deltas: [some(1)] },
  };
  const b: ArchiveNeed = {
    ...{ ...common, ranges: [{ from: 15, to: 30 }], members: [second, first] },
    deltas: [some(1), some(2)],
  };

  test("have each range, NAR and delta once, NARs in their order", () => {
    expect(mergeNeeds(a, b)).toEqual({
      ...{ ...common, ranges: [{ from: 10, to: 30 }], members: [first, second] },
      deltas: [some(1), some(2)],
    });
  });

  test("are the whole archive if one of them is", () => {
    const everything = { ...common, ranges: null, members: [], deltas: [] };
    for (const whole of [a, b]) {
      expect(mergeNeeds(everything, whole)).toEqual(everything);
      expect(mergeNeeds(whole, { ...everything, members: [first] })).toEqual(everything);
    }
  });
});
