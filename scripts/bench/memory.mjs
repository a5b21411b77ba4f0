// The agent's own peak memory at closures of three sizes: everything streams, so it stays flat.
//
// Usage: memory.mjs
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { runBenchmark, say } from "./support/benchmark.mjs";
import { buildDebianSystem } from "./support/debian-systems.mjs";
import { startNginx } from "./support/nginx.mjs";
import { formatMegabytes, formatRatio, printTable, readOptions } from "./support/report.mjs";
import { createHost, createOperator } from "./support/sandbox.mjs";
import { createScratchDisk } from "./support/scratch-disk.mjs";

readOptions({});

const SIZES = [{ maxBytes: 200e6 }, { maxBytes: 800e6 }, {}];

await runBenchmark(async (workspace) => {
  const { directory, bundle } = workspace;
  const operator = await createOperator(workspace);
  const disk = createScratchDisk(workspace, 8e9);
  const rows = [];
  let first;
  for (const size of SIZES) {
    say(`building, publishing and pulling ${formatMegabytes(size.maxBytes ?? 1.7e9)}`);
    const toplevel = await buildDebianSystem(size);
    const name = `closure-${rows.length}`;
    const www = join(directory, name);
    const published = await operator.publish(www, { web1: toplevel });
    const { closureSize, paths, archive } = published.release.hosts.web1;
    const server = await startNginx(www, join(directory, `${name}-nginx`));
    workspace.onEnd(server.stop);

    const pull = async (mirror) => {
      disk.renew();
      const root = join(disk.directory, "root");
      mkdirSync(root);
      const host = createHost(root, bundle, { mirror, publicKey: operator.publicKey });
      return (await host.apply()).peakRssBytes;
    };
    const http = await pull(server.url);
    const file = await pull(`file://${www}`);
    server.stop();
    first ??= { closureSize, http };
    rows.push([
      formatMegabytes(closureSize),
      String(paths),
      formatMegabytes(archive.size),
      formatRatio(closureSize / first.closureSize),
      formatMegabytes(http),
      formatRatio(http / first.http),
      formatMegabytes(file),
      formatMegabytes(published.peakRssBytes),
    ]);
  }
  printTable(
    "Peak memory (RSS) of the nixos-pull process alone, without the Nix that it runs",
    ["closure", "paths", "archive", "size", "apply, http", "ratio", "apply, file", "publish"],
    rows,
  );
});
