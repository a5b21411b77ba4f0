// Many small paths: publish and apply, beside what Nix and tar take for the same paths.
//
// Usage: small-paths.mjs [--paths 2000] [--changed 100] [--rounds 3]
import { closeSync, cpSync, mkdirSync, openSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runBenchmark, say } from "./support/benchmark.mjs";
import { importByHand } from "./support/hand-workflow.mjs";
import { createMemoryDisk } from "./support/memory-disk.mjs";
import { runChecked } from "./support/process-usage.mjs";
import {
  formatMegabytes,
  formatRatio,
  formatSeconds,
  median,
  printTable,
  readOptions,
} from "./support/report.mjs";
import { createHost, createOperator, environment } from "./support/sandbox.mjs";

const { paths, changed, rounds } = readOptions({ paths: 2000, changed: 100, rounds: 3 });

const EXPRESSION = fileURLToPath(new URL("small-paths.nix", import.meta.url));
const NIX_COMMAND = ["--extra-experimental-features", "nix-command"];

await runBenchmark(async (workspace) => {
  const { directory, bundle } = workspace;
  const operator = await createOperator(workspace);
  const { publicKey } = operator;
  const systems = {};
  for (const generation of [1, 2]) {
    say(`building generation ${generation} of ${paths} paths`);
    systems[generation] = await buildSystem(directory, generation);
  }
  const disk = createMemoryDisk(workspace);
  /** All runs, by what is done and who does it. */
  const results = new Map();
  const record = (what, who, run) => {
    const key = `${what} ${who}`;
    results.set(key, [...(results.get(key) ?? []), run]);
    const memory = run.peakRssBytes ? `, ${formatMegabytes(run.peakRssBytes)}` : "";
    const times = `${formatSeconds(run.seconds)}, CPU ${formatSeconds(run.cpuSeconds)}`;
    say(`${what}, ${who}: ${times}${memory}`);
  };

  /** Publishes both generations; what it publishes is not kept. */
  const publishOurs = async () => {
    disk.renew();
    const mirror = join(disk.directory, "mirror");
    record("first", "ours", await operator.publish(mirror, { web1: systems[1] }));
    record("next", "ours", await operator.publish(mirror, { web1: systems[2] }));
  };
  const publishByHand = async () => {
    disk.renew();
    for (const [what, system] of [
      ["first", systems[1]],
      ["next", systems[2]],
    ]) {
      record(what, "by hand", await copyAndPack(disk.directory, system));
    }
  };

  const served = join(directory, "served");
  mkdirSync(served);
  say("publishing what hosts apply");
  const mirrors = {};
  for (const generation of [1, 2]) {
    const mirror = join(served, `mirror-${generation}`);
    if (generation === 2) {
      for (const suffix of ["", ".memory"]) {
        cpSync(mirrors[1] + suffix, mirror + suffix, { recursive: true });
      }
    }
    await operator.publish(mirror, { web1: systems[generation] });
    mirrors[generation] = mirror;
  }
  const cache = join(served, "cache");
  await runChecked(
    "nix",
    [...NIX_COMMAND, "copy", "--to", `file://${cache}?compression=zstd`, systems[2], systems[1]],
    {
      env: environment(directory),
    },
  );
  const secret = join(directory, "operator", "bench.secret");
  const sign = [...NIX_COMMAND, "sign-paths", "--recursive", "--key-file", secret];
  await runChecked("nix", [...sign, "--store", `file://${cache}`, systems[2], systems[1]], {
    env: environment(directory),
  });

  const synced = async (run) => {
    const { seconds } = await runChecked("sync", ["-f", disk.directory]);
    return { ...run, seconds: run.seconds + seconds };
  };
  const applyOurs = async () => {
    disk.renew();
    const root = join(disk.directory, "root");
    mkdirSync(root);
    // The mirror gets its next release in the place of the first.
    const mirror = join(disk.directory, "mirror");
    for (const generation of [1, 2]) {
      cpSync(mirrors[generation], mirror, { recursive: true, force: true });
      const host = createHost(root, bundle, { mirror: `file://${mirror}`, publicKey });
      record(generation === 1 ? "install" : "update", "ours", await synced(await host.apply()));
    }
  };
  const applyByHand = async () => {
    disk.renew();
    const root = join(disk.directory, "root");
    mkdirSync(root);
    const copy = join(disk.directory, "cache");
    cpSync(cache, copy, { recursive: true });
    for (const generation of [1, 2]) {
      const run = await importByHand(root, `file://${copy}`, [systems[generation]], publicKey);
      record(generation === 1 ? "install" : "update", "by hand", await synced(run));
    }
  };

  for (let round = 0; round < rounds; round++) {
    const steps = [publishByHand, publishOurs, applyByHand, applyOurs];
    if (round % 2 === 1) steps.reverse();
    for (const step of steps) await step();
  }
  printResults(results);
});

/** Builds one generation; gives its store path. */
async function buildSystem(directory, generation) {
  const given = { count: paths, changed, generation };
  const args = Object.entries(given).flatMap(([name, value]) => ["--argstr", name, String(value)]);
  const { stdout } = await runChecked("nix-build", [EXPRESSION, "--no-out-link", ...args], {
    env: environment(directory),
  });
  return stdout.trim();
}

/** A binary cache and a tar of what is new in it, as one would make them by hand. */
async function copyAndPack(directory, system) {
  const cache = join(directory, "cache");
  const stamp = join(directory, "stamp");
  closeSync(openSync(stamp, "w"));
  const url = `file://${cache}?compression=zstd`;
  const copy = await runChecked("nix", [...NIX_COMMAND, "copy", "--to", url, system], {
    env: environment(directory),
  });
  const archive = join(directory, "archive.tar");
  const pack = await runChecked("tar", ["-c", "-f", archive, "--newer", stamp, "-C", cache, "."]);
  return {
    seconds: copy.seconds + pack.seconds,
    cpuSeconds: copy.cpuSeconds + pack.cpuSeconds,
  };
}

function printResults(results) {
  const of = (key, figure) => median((results.get(key) ?? []).map((run) => run[figure]));
  const row = (label, what) => {
    const cells = ["seconds", "cpuSeconds"].flatMap((figure) => {
      const [ours, byHand] = ["ours", "by hand"].map((who) => of(`${what} ${who}`, figure));
      return [formatSeconds(byHand), formatSeconds(ours), formatRatio(ours / byHand)];
    });
    return [label, ...cells, formatMegabytes(of(`${what} ours`, "peakRssBytes"))];
  };
  printTable(
    `${paths} small paths, of which an update changes ${changed}, on tmpfs; medians of ${rounds} rounds`,
    ["", "by hand", "nixos-pull", "ratio", "by hand, CPU", "nixos-pull, CPU", "ratio", "peak RSS"],
    [
      row("publish, first", "first"),
      row("publish, next", "next"),
      row("apply, first", "install"),
      row("apply, next", "update"),
    ],
  );
}
