// Publishing many hosts that share most of their closure.
//
// Usage: publish.mjs [--megabytes 1800]
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { runBenchmark, say } from "./support/benchmark.mjs";
import { buildDebianSystems } from "./support/debian-systems.mjs";
import {
  formatMegabytes,
  formatRatio,
  formatSeconds,
  printTable,
  readOptions,
} from "./support/report.mjs";
import { createOperator } from "./support/sandbox.mjs";
import { createScratchDisk } from "./support/scratch-disk.mjs";

const { megabytes } = readOptions({ megabytes: 1800 });

const COUNTS = [1, 10, 100];
const maxBytes = megabytes * 1e6;

await runBenchmark(async (workspace) => {
  const hosts = Array.from({ length: Math.max(...COUNTS) }, (_, at) => `h${at + 1}`);
  const systems = {};
  for (const generation of [1, 2]) {
    say(`building generation ${generation} of ${hosts.length} hosts`);
    systems[generation] = await buildDebianSystems({ hosts, generation, maxBytes });
  }
  const operator = await createOperator(workspace);
  const disk = createScratchDisk(workspace, 14e9);
  const runs = [];
  for (const count of COUNTS) {
    disk.renew();
    const mirror = join(disk.directory, "mirror");
    const cache = join(disk.directory, "cache");
    const publish = async (generation) => {
      say(`publishing generation ${generation} of ${count} hosts`);
      const some = Object.entries(systems[generation]).slice(0, count);
      return operator.publish(mirror, Object.fromEntries(some), "--cache", cache);
    };
    const first = await publish(1);
    const firstBytes = bytesBelow(mirror);
    const next = await publish(2);
    runs.push({ count, first, firstBytes, next, nextBytes: bytesBelow(mirror) - firstBytes });
  }
  const [{ closureSize }] = Object.values(runs[0].first.release.hosts);
  const rows = runs.map(({ count, first, firstBytes, next, nextBytes }) => [
    String(count),
    formatSeconds(first.seconds),
    formatRatio(first.seconds / runs[0].first.seconds),
    formatMegabytes(firstBytes),
    formatRatio(firstBytes / runs[0].firstBytes),
    formatSeconds(next.seconds),
    formatRatio(next.seconds / runs[0].next.seconds),
    formatMegabytes(nextBytes),
    formatRatio(nextBytes / runs[0].nextBytes),
    formatSeconds(first.cpuSeconds),
    formatMegabytes(first.peakRssBytes),
  ]);
  printTable(
    `Publishing hosts of ${formatMegabytes(closureSize)} each that differ in four small paths: a ` +
      "first release (nothing compressed yet), and the next one, a configuration change on every host",
    [
      ...["hosts", "first", "ratio", "mirror", "ratio"],
      ...["next", "ratio", "mirror grows", "ratio", "first, CPU", "peak RSS"],
    ],
    rows,
  );
});

/** Sizes of all files below a directory. */
function bytesBelow(directory) {
  return readdirSync(directory, { recursive: true })
    .map((name) => statSync(join(directory, name)))
    .reduce((sum, found) => sum + (found.isFile() ? found.size : 0), 0);
}
