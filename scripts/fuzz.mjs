// Fuzzes every parser of what a mirror gives, for a given time: genuine inputs and the
// corpus, changed at random. Prints the seed and how often each parser ran; ends with 1
// and the input where one throws anything but a PullError.
//
//   node scripts/fuzz.mjs [SECONDS] [SEED]     (default: 30 seconds, a seed of its own)
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));
const seconds = Number(process.argv[2] ?? 30);
const seed = Number(process.argv[3] ?? Date.now() % 2 ** 31);

/** Bundles the targets, since Node 20 runs no TypeScript, and loads them. */
async function loadTargets() {
  const directory = await mkdtemp(join(tmpdir(), "nixos-pull-fuzz-"));
  try {
    const outfile = join(directory, "targets.cjs");
    await build({
      absWorkingDir: root,
      entryPoints: ["test/support/fuzz-targets.ts"],
      outfile,
      bundle: true,
      platform: "node",
      target: "node20",
      format: "cjs",
      logLevel: "warning",
    });
    return createRequire(import.meta.url)(outfile);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const { FUZZ_TARGETS, accepts, mutate, randomFrom } = await loadTargets();
const names = await readdir(join(root, "test/corpus"));
const corpus = await Promise.all(names.map((name) => readFile(join(root, "test/corpus", name))));
const random = randomFrom(seed);
const counts = new Map(FUZZ_TARGETS.map(({ name }) => [name, { runs: 0, accepted: 0 }]));
console.log(`seed ${seed}, ${seconds} s, ${corpus.length} files of corpus`);

const end = Date.now() + seconds * 1000;
while (Date.now() < end) {
  for (const target of FUZZ_TARGETS) {
    const seeds = [...target.seeds, ...corpus];
    // Genuine inputs reach deeper than the corpus: most runs start from them.
    const pool = random() < 0.8 ? target.seeds : seeds;
    const input = mutate(pool[Math.floor(random() * pool.length)], seeds, random);
    const count = counts.get(target.name);
    count.runs += 1;
    try {
      if (await accepts(target, input)) count.accepted += 1;
    } catch (error) {
      const file = join(tmpdir(), `nixos-pull-fuzz-${seed}-${target.name.replace(/\W+/g, "-")}`);
      await writeFile(file, input);
      console.error(`${target.name}: ${error.stack}\nthe input is in ${file}`);
      process.exit(1);
    }
  }
}
for (const [name, { runs, accepted }] of counts) {
  console.log(`${name.padEnd(18)} ${String(runs).padStart(8)} runs, ${accepted} accepted`);
}
