import { expect, test } from "vitest";
import { readIndex } from "../../../../agent/core/formats/archive-index.ts";
import { portionsOf } from "../../../../agent/core/transfer/closure-plan.ts";
import { planFetch } from "../../../../agent/host/fetch/plan.ts";
import { FetchWorld } from "../../../support/fetch-world.ts";
import {
  SAMPLE_KEY,
  sampleArchive,
  withDeltas,
  type SampleArchive,
} from "../../../support/sample-archive.ts";

const ROW = sampleArchive(
  Array.from({ length: 6 }, (_, at) => ({
    name: `p${at}`,
    references: at === 0 ? [] : [at - 1],
    nar: Buffer.alloc(1_000, at + 1),
  })),
);

async function planned(sample: SampleArchive, valid: readonly string[] = []) {
  const world = new FetchWorld(sample);
  for (const name of valid) world.valid.add(world.path(name));
  const { compressed, release } = sample;
  const contents = readIndex(compressed, release, [SAMPLE_KEY.publicKey]);
  return { plan: await planFetch(contents, world.tools()), world };
}

/** Portions by the names of paths, those of deltas first. */
function shown(portions: ReturnType<typeof portionsOf>, world: FetchWorld): string[] {
  return portions.map(({ deltas, nars }) => {
    const made = deltas.map(({ path }) => `d${path.slice(-1)}`);
    const whole = [0, 1, 2, 3, 4, 5].filter((at) => nars.has(world.nar(`p${at}`)));
    return [...made, ...whole.map((at) => `p${at}`)].join(" ");
  });
}

test("a plan has what the store lacks, in topological order", async () => {
  const { plan, world } = await planned(ROW, ["p0", "p3"]);
  expect(plan.paths.map(({ path }) => path)).toEqual(
    ["p1", "p2", "p4", "p5"].map((name) => world.path(name)),
  );
  expect([...plan.nars.keys()]).toEqual(["p1", "p2", "p4", "p5"].map((name) => world.nar(name)));
  expect(plan.paths.every(({ delta }) => delta === null)).toBe(true);
});

test("two paths of the same contents have one NAR", async () => {
  const nar = Buffer.alloc(600, 9);
  const twins = sampleArchive([
    { name: "one", references: [], nar },
    { name: "two", references: [], nar },
  ]);
  const { plan, world } = await planned(twins);
  expect(plan.paths).toHaveLength(2);
  expect([...plan.nars.keys()]).toEqual([world.nar("one")]);
  const whole = new FetchWorld(twins);
  expect(await whole.fetch()).toMatchObject({ newPaths: 2, bytesReceived: 600 });
  expect(whole.only("discard")).toHaveLength(1);
});

test("without deltas everything is one portion, in the order of the archives", async () => {
  const { plan } = await planned(ROW);
  expect(portionsOf(plan, 1)).toEqual([{ deltas: [], nars: new Set(plan.nars.keys()) }]);
});

test("with deltas portions follow the order of imports, and none is larger than asked", async () => {
  // Of a delta counts what it gives, of another path what is downloaded.
  const sample = withDeltas(ROW, [
    { at: 1, bytes: Buffer.from("1") },
    { at: 4, bytes: Buffer.from("4") },
  ]);
  const { plan, world } = await planned(sample);
  expect(shown(portionsOf(plan, 3_100), world)).toEqual(["d1 p0 p2", "d4 p3 p5"]);
  expect(shown(portionsOf(plan, 3_099), world)).toEqual(["d1 p0", "p2 p3", "d4 p5"]);
  expect(shown(portionsOf(plan, 1), world)).toEqual(["p0", "d1", "p2", "p3", "d4", "p5"]);
  expect(shown(portionsOf(plan, 1e9), world)).toEqual(["d1 d4 p0 p2 p3 p5"]);
});
