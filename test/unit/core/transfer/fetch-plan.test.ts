import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  isNarMember,
  readIndex,
  type ArchiveContents,
} from "../../../../agent/core/formats/archive-index.ts";
import {
  DEFAULT_GAP,
  bytesOf,
  planRuns,
  wantedBytesOf,
  type Run,
} from "../../../../agent/core/transfer/fetch-plan.ts";
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

/** An archive, some of its NARs with the bytes held of each, and a gap. */
const plans = sampleArchives.chain((archive) => {
  const names = [...archive.nars.keys()];
  return fc.record({
    archive: fc.constant(archive),
    wanted: fc.subarray(names, { minLength: 1 }),
    held: fc.array(fc.double({ min: 0, max: 0.999, noNaN: true }), {
      minLength: names.length,
      maxLength: names.length,
    }),
    resumes: fc.boolean(),
    gap: fc.constantFrom(0, 512, 1024, 3000, DEFAULT_GAP),
  });
});
type Plan = typeof plans extends fc.Arbitrary<infer T> ? T : never;

function missingOf({ archive, wanted, held, resumes }: Plan): Map<string, number> {
  return new Map(
    wanted.map((name, at) => {
      const size = archive.nars.get(name)?.length ?? 0;
      // At most the first one was broken off, as when a download was interrupted.
      return [name, resumes && at === 0 ? Math.floor((held[at] ?? 0) * size) : 0];
    }),
  );
}

function isWhole(runs: readonly Run[], contents: ArchiveContents): boolean {
  return runs.length === 1 && runs[0]?.to === contents.size;
}

describe("for any archive and any missing NARs", () => {
  test("runs are ascending and disjoint, within the archive, and none is empty", () => {
    fc.assert(
      fc.property(plans, (plan) => {
        const contents = contentsOf(plan.archive);
        let end = contents.members[0]?.headerOffset ?? 0;
        for (const run of planRuns(contents, missingOf(plan), plan.gap)) {
          expect(run.from).toBeGreaterThanOrEqual(end);
          expect(run.to).toBeGreaterThan(run.from);
          expect(run.members.length).toBeGreaterThan(0);
          end = run.to;
        }
        expect(end).toBeLessThanOrEqual(contents.size);
      }),
    );
  });

  test("every missing NAR is wanted by one run, from the byte where it broke off", () => {
    fc.assert(
      fc.property(plans, (plan) => {
        const contents = contentsOf(plan.archive);
        const missing = missingOf(plan);
        const runs = planRuns(contents, missing, plan.gap);
        const wanted = runs
          .flatMap(({ members }) => members)
          .filter(({ member, wanted }) => wanted && isNarMember(member));
        expect(new Map(wanted.map(({ member, have }) => [member.name, have]))).toEqual(missing);
        expect(wanted).toHaveLength(missing.size);
      }),
    );
  });

  test("a run's bytes are exactly those of its members", () => {
    fc.assert(
      fc.property(plans, (plan) => {
        const contents = contentsOf(plan.archive);
        const runs = planRuns(contents, missingOf(plan), plan.gap);
        for (const { from, to, members } of runs) {
          let at = from;
          for (const { member, have } of members) {
            const data = member.headerOffset + 512;
            expect(at).toBe(have > 0 ? data + have : member.headerOffset);
            at = data + Math.ceil(member.size / 512) * 512;
          }
          expect(to).toBe(at + (isWhole(runs, contents) ? 1024 : 0));
        }
      }),
    );
  });

  test("unwanted bytes are read only between wanted NARs, and only up to the gap", () => {
    fc.assert(
      fc.property(plans, (plan) => {
        const contents = contentsOf(plan.archive);
        const runs = planRuns(contents, missingOf(plan), plan.gap);
        fc.pre(!isWhole(runs, contents));
        for (const { members } of runs) {
          expect(members[0]?.wanted).toBe(true);
          expect(members.at(-1)?.wanted).toBe(true);
          let unwanted = 0;
          for (const { member, wanted } of members) {
            unwanted = wanted ? 0 : unwanted + 512 + Math.ceil(member.size / 512) * 512;
            expect(unwanted).toBeLessThanOrEqual(plan.gap);
          }
        }
        for (const [at, run] of runs.entries()) {
          const next = runs[at + 1];
          // A run could only have gone on over a larger gap, or the next one resumes.
          const resumes = (next?.members[0]?.have ?? 0) > 0;
          if (next && !resumes) expect(next.from - run.to).toBeGreaterThan(plan.gap);
        }
      }),
    );
  });

  test("without a limit to the gap there is one run", () => {
    fc.assert(
      fc.property(plans, (plan) => {
        const missing = missingOf({ ...plan, resumes: false });
        expect(planRuns(contentsOf(plan.archive), missing, Infinity)).toHaveLength(1);
      }),
    );
  });

  test("everything missing is the whole archive, narinfos and end included", () => {
    fc.assert(
      fc.property(sampleArchives, (archive) => {
        const contents = contentsOf(archive);
        const missing = new Map([...archive.nars.keys()].map((name) => [name, 0]));
        const runs = planRuns(contents, missing);
        const members = contents.members.map((member) => ({ member, wanted: true, have: 0 }));
        const from = 512 + Math.ceil(archive.compressed.length / 512) * 512;
        expect(runs).toEqual([
          { archive: contents.sha256, from, to: archive.bytes.length, members },
        ]);
        expect(bytesOf(runs)).toBe(archive.bytes.length - from);
      }),
    );
  });
});

describe("in a chain of three NARs of 2, 2 and 1 blocks", () => {
  const archive = chainArchive();
  const contents = contentsOf(archive);
  const [library = "", program = "", system = ""] = archive.nars.keys();
  const start = contents.members.find(({ name }) => name === library)?.headerOffset ?? 0;

  function planned(missing: readonly (readonly [string, number])[], gap?: number) {
    return planRuns(contents, new Map(missing), gap).map(({ from, to, members }) => ({
      bytes: [from - start, to - start],
      members: members.map(({ member, wanted }) => (wanted ? member.name : `(${member.name})`)),
    }));
  }

  test("nothing missing needs no run", () => {
    expect(planned([])).toEqual([]);
    expect(bytesOf([])).toBe(0);
  });

  test("one missing NAR is read with its header and padding", () => {
    expect(planned([[program, 0]])).toEqual([{ bytes: [1536, 3072], members: [program] }]);
    expect(planned([[system, 0]])).toEqual([{ bytes: [3072, 4096], members: [system] }]);
  });

  test("a small gap is read through, a gap of exactly the limit too", () => {
    const ends = [
      [library, 0],
      [system, 0],
    ] as const;
    const through = [{ bytes: [0, 4096], members: [library, `(${program})`, system] }];
    expect(planned(ends)).toEqual(through);
    expect(planned(ends, 1536)).toEqual(through);
  });

  test("a larger gap is jumped over", () => {
    expect(
      planned(
        [
          [library, 0],
          [system, 0],
        ],
        1535,
      ),
    ).toEqual([
      { bytes: [0, 1536], members: [library] },
      { bytes: [3072, 4096], members: [system] },
    ]);
  });

  test("a NAR that broke off is resumed at that byte, and what follows joins it", () => {
    expect(
      planned([
        [library, 699],
        [program, 0],
        [system, 0],
      ]),
    ).toEqual([{ bytes: [512 + 699, 4096], members: [library, program, system] }]);
  });

  test("a NAR that broke off is never read through from a run before it", () => {
    expect(
      planned([
        [library, 0],
        [program, 1],
      ]),
    ).toEqual([
      { bytes: [0, 1536], members: [library] },
      { bytes: [1536 + 512 + 1, 3072], members: [program] },
    ]);
  });

  test("without a limit to the gap there is one run, whatever broke off", () => {
    expect(
      planned(
        [
          [library, 0],
          [program, 1],
          [system, 0],
        ],
        Infinity,
      ),
    ).toHaveLength(1);
  });
});

describe("NARs in other archives", () => {
  const contents = contentsOf(chainArchive());
  const [library, program, system] = contents.members.filter(isNarMember);
  if (!library || !program || !system) throw new Error("no NARs");
  const at = (member: typeof library, headerOffset: number) => ({ ...member, headerOffset });
  const other = { sha256: "ab".repeat(32), size: 1_000_000 };
  const divided: ArchiveContents = {
    ...contents,
    members: contents.members.filter((member) => member !== library && member !== program),
    elsewhere: [{ archive: other, nars: [at(library, 512), at(program, 9_728)] }],
  };
  const all = new Map([library, program, system].map(({ name }) => [name, 0]));

  test("are read first, past whatever lies between, and then the archive's own", () => {
    const [shared, own, ...more] = planRuns(divided, all);
    expect(more).toEqual([]);
    expect(shared).toMatchObject({ archive: other.sha256, from: 512, to: 9_728 + 512 + 1024 });
    expect(shared?.members.map(({ member }) => member.name)).toEqual([library.name, program.name]);
    // Without its narinfos and its end, which in a small archive are more than the NARs.
    const { headerOffset: from } = system;
    expect(own).toMatchObject({ archive: contents.sha256, from, to: contents.size - 1024 });
  });

  test("are read by requests of their own where the gap is too wide, or the sum too great", () => {
    expect(planRuns(divided, all, 4096)).toHaveLength(3);
    const limited = planRuns(divided, all, DEFAULT_GAP, program.size);
    expect(limited.map(({ archive }) => archive)).toEqual([
      other.sha256,
      other.sha256,
      contents.sha256,
    ]);
    expect(limited.every((run) => wantedBytesOf(run) <= program.size)).toBe(true);
  });

  test("need only that archive where nothing else is missing", () => {
    const runs = planRuns(divided, new Map([[program.name, 100]]));
    expect(runs).toMatchObject([{ archive: other.sha256, from: 9_728 + 512 + 100 }]);
  });
});

describe("a limit to what one run brings", () => {
  const contents = contentsOf(chainArchive());
  const [library, program, system] = contents.members.filter(isNarMember);
  if (!library || !program || !system) throw new Error("no NARs");
  const some = new Map([library, program].map(({ name }) => [name, 0]));
  const wants = (limit: number): number[] =>
    planRuns(contents, some, DEFAULT_GAP, limit).map(wantedBytesOf);

  test("counts the NARs that are wanted, and may be met exactly", () => {
    expect(wants(Infinity)).toEqual([1_724]);
    expect(wants(1_724)).toEqual([1_724]);
    expect(wants(1_723)).toEqual([700, 1_024]);
    // One that is larger than the limit comes alone.
    expect(wants(1)).toEqual([700, 1_024]);
  });

  test("counts neither what lies between nor narinfos, and starts anew with each run", () => {
    const ends = new Map([library, system].map(({ name }) => [name, 0]));
    expect(planRuns(contents, ends, DEFAULT_GAP, 790).map(wantedBytesOf)).toEqual([790]);
    const all = new Map([library, program, system].map(({ name }) => [name, 0]));
    const runs = planRuns(contents, all, DEFAULT_GAP, 1_114);
    expect(runs.map(wantedBytesOf)).toEqual([700, 1_114]);
    // All of the archive is read: only the last run goes on to its end.
    expect(runs.map(({ to }) => to)).toEqual([program.headerOffset, contents.size]);
    expect(bytesOf(runs)).toBe(contents.size - (contents.members[0]?.headerOffset ?? 0));
  });
});
