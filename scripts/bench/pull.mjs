// The first pull of a closure of 1.7 GB: nixos-pull against the same by hand.
//
// Usage: pull.mjs [--rounds 3]
import { spawnSync } from "node:child_process";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { runBenchmark, say } from "./support/benchmark.mjs";
import { WHOLE, buildDebianSystem } from "./support/debian-systems.mjs";
import { importByHand, unpackByHand } from "./support/hand-workflow.mjs";
import { startNginx } from "./support/nginx.mjs";
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
import { createScratchDisk } from "./support/scratch-disk.mjs";

const { rounds } = readOptions({ rounds: 3 });

await runBenchmark(async (workspace) => {
  const { directory, bundle } = workspace;
  say(`building the closure of ${WHOLE}`);
  const toplevel = await buildDebianSystem();
  const operator = await createOperator(workspace);
  const www = join(directory, "www");
  mkdirSync(www);
  say("publishing it");
  const { release } = await operator.publish(join(www, "mirror"), { web1: toplevel });
  const { archive, paths, closureSize } = release.hosts.web1;
  const archivePath = `mirror/archives/${archive.sha256}.tar`;

  const server = await startNginx(www, join(directory, "nginx"));
  workspace.onEnd(server.stop);
  const archiveUrl = `${server.url}/${archivePath}`;
  // The archive unpacked is a plain binary cache, for those who serve one.
  mkdirSync(join(www, "cache"));
  await runChecked("tar", ["-x", "-f", join(www, archivePath), "-C", join(www, "cache")]);

  const disk = createScratchDisk(workspace, 8e9);
  /** Every run finds an empty file system and nothing that waits to be written. */
  const freshRoot = () => {
    disk.renew();
    const root = join(disk.directory, "root");
    mkdirSync(root);
    spawnSync("sync");
    return root;
  };
  /** How long until all that was written is on the disk. */
  const flush = async () => (await runChecked("sync", ["-f", disk.directory])).seconds;

  const variants = {
    async agent() {
      const { publicKey } = operator;
      const host = createHost(freshRoot(), bundle, { mirror: `${server.url}/mirror`, publicKey });
      const run = await host.apply();
      return { ...run, flushSeconds: await flush() };
    },
    async hand() {
      const root = freshRoot();
      const unpacked = await unpackByHand(root, archiveUrl);
      const cache = `file://${unpacked.directory}`;
      const imported = await importByHand(root, cache, [toplevel], operator.publicKey);
      return {
        seconds: unpacked.seconds + imported.seconds,
        cpuSeconds: unpacked.cpuSeconds + imported.cpuSeconds,
        closureSeconds: unpacked.seconds + imported.seconds,
        otherSeconds: 0,
        flushSeconds: await flush(),
      };
    },
    async cache() {
      const url = `${server.url}/cache`;
      const run = await importByHand(freshRoot(), url, [toplevel], operator.publicKey);
      return { ...run, flushSeconds: await flush() };
    },
    async curl() {
      const args = ["-sSf", "-o", "/dev/null", archiveUrl];
      return runChecked("curl", args, { env: environment(directory) });
    },
  };

  const results = Object.fromEntries(Object.keys(variants).map((name) => [name, []]));
  // All served files are in the page cache before the first round.
  await variants.curl();
  await runChecked("bash", ["-c", 'cat "$1"/nar/* > /dev/null', "bash", join(www, "cache")]);
  for (let round = 0; round < rounds; round++) {
    const order = Object.entries(variants);
    // Forth and back, so that what changes with time changes for all.
    if (round % 2 === 1) order.reverse();
    for (const [name, run] of order) {
      const result = await run();
      results[name].push(result);
      say(`round ${round + 1}: ${name} ${formatSeconds(result.seconds)}`);
    }
  }
  rmSync(join(www, "cache"), { recursive: true });

  const of = (name, key) => median(results[name].map((result) => result[key]));
  const byHand = of("hand", "seconds");
  const row = (label, name) => {
    const optional = (key) => {
      const value = of(name, key);
      return Number.isNaN(value) || value === undefined ? "" : formatSeconds(value);
    };
    const ratios = results[name].map(({ seconds }, at) => seconds / results.hand[at].seconds);
    return [
      label,
      formatSeconds(of(name, "seconds")),
      formatRatio(of(name, "seconds") / byHand),
      `${formatRatio(Math.min(...ratios))} – ${formatRatio(Math.max(...ratios))}`,
      optional("closureSeconds"),
      optional("otherSeconds"),
      optional("flushSeconds"),
      formatSeconds(of(name, "cpuSeconds")),
    ];
  };
  printTable(
    `First pull: ${paths} paths, ${formatMegabytes(closureSize)} in the store, an archive of ` +
      `${formatMegabytes(archive.size)} (zstd) from nginx on loopback; medians of ${rounds} rounds`,
    ["", "time", "ratio", "over rounds", "read and import", "rest", "then sync", "CPU"],
    [
      row("by hand: curl, tar -x; nix copy --from file://", "hand"),
      row("nixos-pull apply", "agent"),
      row("nix copy --from http://, a plain binary cache", "cache"),
      row("curl to /dev/null", "curl"),
    ],
  );
});
