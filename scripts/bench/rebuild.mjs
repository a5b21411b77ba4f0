// A mass rebuild, the same contents under new hashes: what deltas make of it, in bytes.
//
// Usage: rebuild.mjs [--megabytes 1800]
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { runBenchmark, say } from "./support/benchmark.mjs";
import { buildDebianSystem } from "./support/debian-systems.mjs";
import { startNginx, wireBytes } from "./support/nginx.mjs";
import {
  formatMegabytes,
  formatRatio,
  formatSeconds,
  printTable,
  readOptions,
} from "./support/report.mjs";
import { createHost, createOperator } from "./support/sandbox.mjs";
import { createScratchDisk } from "./support/scratch-disk.mjs";

const { megabytes } = readOptions({ megabytes: 1800 });
const maxBytes = megabytes * 1e6;

await runBenchmark(async (workspace) => {
  const { directory, bundle } = workspace;
  const operator = await createOperator(workspace);
  const disk = createScratchDisk(workspace, 8e9);
  say("building the closure, and again under other hashes");
  const before = await buildDebianSystem({ maxBytes });
  const after = await buildDebianSystem({ maxBytes, salt: "rebuilt" });
  const rows = [];
  let closureSize = 0;
  for (const [label, ...options] of [
    ["without deltas", "--deltas", "0"],
    ["publish --deltas 1", "--deltas", "1"],
  ]) {
    disk.renew();
    const www = join(disk.directory, "www");
    mkdirSync(www);
    const server = await startNginx(www, join(directory, `nginx-${rows.length}`));
    workspace.onEnd(server.stop);
    await operator.publish(www, { web1: before });
    const host = createHost(join(disk.directory, "root"), bundle, {
      mirror: server.url,
      publicKey: operator.publicKey,
    });
    await host.apply();
    say(`publishing the rebuild ${label}`);
    const published = await operator.publish(www, { web1: after }, ...options);
    const { archive } = published.release.hosts.web1;
    ({ closureSize } = published.release.hosts.web1);
    const seen = server.requests().length;
    const applied = await host.apply();
    const wire = wireBytes(server.requests().slice(seen));
    const whole = statSync(join(www, "archives", `${archive.sha256}.tar`)).size;
    rows.push([
      label,
      formatMegabytes(whole),
      wire < 1e6 ? `${(wire / 1e3).toFixed(1)} kB` : formatMegabytes(wire),
      formatRatio(whole / wire),
      formatSeconds(applied.seconds),
      formatMegabytes(applied.peakRssBytes),
      formatSeconds(published.seconds),
    ]);
    server.stop();
  }
  printTable(
    `A mass rebuild of a closure of ${formatMegabytes(closureSize)}. Wire: HTTP both ways, manifest and index included`,
    ["", "the new NARs", "wire", "smaller by", "apply", "peak RSS", "publish"],
    rows,
  );
});
