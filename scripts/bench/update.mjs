// A configuration change on a host that has the rest of the closure: bytes and time. By hand,
// which knows no shared archives, it is read from a mirror published with --whole.
//
// Usage: update.mjs [--rounds 3]
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { runBenchmark, say } from "./support/benchmark.mjs";
import { WHOLE, buildDebianSystem } from "./support/debian-systems.mjs";
import { importByHand, unpackByHand } from "./support/hand-workflow.mjs";
import { newNars } from "./support/new-nars.mjs";
import { startNginx, wireBytes } from "./support/nginx.mjs";
import {
  formatMegabytes,
  formatRatio,
  formatSeconds,
  median,
  printTable,
  readOptions,
} from "./support/report.mjs";
import { createHost, createOperator } from "./support/sandbox.mjs";
import { createScratchDisk } from "./support/scratch-disk.mjs";

const { rounds } = readOptions({ rounds: 3 });

await runBenchmark(async (workspace) => {
  const { directory, bundle } = workspace;
  const operator = await createOperator(workspace);
  const { publicKey } = operator;
  const www = join(directory, "www");
  const thin = join(www, "thin");
  const whole = join(www, "whole");
  const cache = join(directory, "cache");
  mkdirSync(www);
  const server = await startNginx(www, join(directory, "nginx"));
  workspace.onEnd(server.stop);
  const disk = createScratchDisk(workspace, 12e9);
  const agentRoot = join(disk.directory, "agent");
  const host = createHost(agentRoot, bundle, { mirror: `${server.url}/thin`, publicKey });

  /** Builds and publishes a generation for both sides; gives what each was given. */
  const publish = async (generation) => {
    say(`building and publishing generation ${generation} of ${WHOLE}`);
    const toplevel = await buildDebianSystem({ generation });
    const publishTo = async (mirror, ...args) => {
      const hosts = { web1: toplevel };
      const { release } = await operator.publish(mirror, hosts, "--cache", cache, ...args);
      return release.hosts.web1;
    };
    return { thin: await publishTo(thin), whole: await publishTo(whole, "--whole") };
  };
  /** `curl | tar -x; nix copy`, into a directory of its own each time, as one would by hand. */
  const byHand = async ({ archive, toplevel }, name) => {
    const root = join(disk.directory, "hand");
    const url = `${server.url}/whole/archives/${archive.sha256}.tar`;
    const unpacked = await unpackByHand(join(root, name), url);
    const imported = await importByHand(
      root,
      `file://${unpacked.directory}`,
      [toplevel],
      publicKey,
    );
    return {
      seconds: unpacked.seconds + imported.seconds,
      closureSeconds: unpacked.seconds + imported.seconds,
      otherSeconds: 0,
    };
  };
  /** Runs one side; gives it with its bytes on the wire. */
  const counted = async (run) => {
    spawnSync("sync");
    const before = server.requests().length;
    const result = await run();
    const requests = server.requests().slice(before);
    return { ...result, wire: wireBytes(requests), requests: requests.length };
  };

  let published = await publish(1);
  const firstPull = await counted(() => host.apply());
  await counted(() => byHand(published.whole, "unpacked-1"));

  const results = { agent: [], hand: [], newBytes: [], newPaths: [] };
  for (let round = 0; round < rounds; round++) {
    const previous = published;
    published = await publish(round + 2);
    const fresh = await newNars(cache, previous.whole.toplevel, published.whole.toplevel);
    results.newPaths.push(fresh.length);
    results.newBytes.push(fresh.reduce((sum, bytes) => sum + bytes, 0));
    const sides = [
      ["agent", () => host.apply()],
      ["hand", () => byHand(published.whole, `unpacked-${round + 2}`)],
    ];
    for (const [name, run] of round % 2 === 0 ? sides : sides.reverse()) {
      const result = await counted(run);
      results[name].push(result);
      say(`round ${round + 1}: ${name} ${formatSeconds(result.seconds)}`);
    }
  }

  const of = (name, key) => median(results[name].map((result) => result[key]));
  const newBytes = median(results.newBytes);
  const row = (label, { wire, requests, seconds, ...parts }) => [
    label,
    wire < 1e6 ? `${(wire / 1e3).toFixed(1)} kB` : formatMegabytes(wire),
    `${(wire / newBytes).toFixed(wire / newBytes < 100 ? 1 : 0)}×`,
    `${((100 * wire) / published.whole.archive.size).toFixed(3)} %`,
    requests === undefined ? "" : String(requests),
    seconds === undefined ? "" : formatSeconds(seconds),
    seconds === undefined ? "" : formatRatio(seconds / of("hand", "seconds")),
    ...["closureSeconds", "otherSeconds"].map((key) =>
      parts[key] === undefined ? "" : formatSeconds(parts[key]),
    ),
  ];
  const medians = (name) =>
    Object.fromEntries(
      ["wire", "requests", "seconds", "closureSeconds", "otherSeconds"].map((key) => [
        key,
        of(name, key),
      ]),
    );
  printTable(
    `A configuration change (${median(results.newPaths)} new of ${published.whole.paths} paths) by nginx on ` +
      `loopback; medians of ${rounds} rounds. Wire: HTTP both ways, manifest and index included`,
    [
      ...["", "wire", "to new NARs", "to archive", "requests"],
      ...["time", "ratio", "read and import", "rest"],
    ],
    [
      row("the new NARs themselves", { wire: newBytes }),
      row("nixos-pull apply", medians("agent")),
      row("by hand: the whole archive again", medians("hand")),
      row("(nixos-pull apply, the first pull)", firstPull),
    ],
  );
});
