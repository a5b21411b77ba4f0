// Updates as they happen, over links as they are: bytes and time, beside what people have
// today, `nix copy --from http://` from a plain binary cache, and the whole archive by hand.
//
// Usage: links.mjs [--megabytes 200] [--seconds 90]
//
// Runs that would take longer than --seconds at a link's rate by their bytes alone are not
// made; the table has that time in brackets. Times are until everything is on the disk.
import { spawnSync } from "node:child_process";
import { cpSync, lstatSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { runBenchmark, say } from "./support/benchmark.mjs";
import { buildDebianSystem } from "./support/debian-systems.mjs";
import { importByHand, unpackByHand } from "./support/hand-workflow.mjs";
import { newNars } from "./support/new-nars.mjs";
import { startNginx } from "./support/nginx.mjs";
import { runChecked } from "./support/process-usage.mjs";
import {
  formatMegabytes,
  formatRatio,
  formatSeconds,
  printTable,
  readOptions,
} from "./support/report.mjs";
import { createHost, createOperator } from "./support/sandbox.mjs";
import { createScratchDisk } from "./support/scratch-disk.mjs";
import { startSlowLink } from "./support/slow-link.mjs";

const { megabytes, seconds: longest } = readOptions({ megabytes: 200, seconds: 90 });

/** Megabits a second; null is loopback itself. */
const RATES = [null, 100, 10, 1];
const maxBytes = megabytes * 1e6;

await runBenchmark(async (workspace) => {
  const { directory, bundle } = workspace;
  const operator = await createOperator(workspace);
  const disk = createScratchDisk(workspace, 12e9);
  say("building the systems");
  const plain = await buildDebianSystem({ maxBytes, suite: "bookworm" });
  const updated = await buildDebianSystem({ maxBytes });
  const systems = {
    "first install": [null, updated],
    configuration: [updated, await buildDebianSystem({ maxBytes, generation: 2 })],
    "security updates": [plain, updated],
    "mass rebuild": [updated, await buildDebianSystem({ maxBytes, salt: "rebuilt" })],
    "next release": [updated, await buildDebianSystem({ maxBytes, suite: "trixie" })],
  };
  for (const [at, [scenario, [before, after]]] of Object.entries(systems).entries()) {
    await measure(scenario, before, after, at);
  }

  async function measure(scenario, before, after, at) {
    disk.renew();
    const www = join(disk.directory, "www");
    mkdirSync(www);
    const server = await startNginx(www, join(directory, `nginx-${at}`));
    workspace.onEnd(server.stop);
    const mirror = join(www, "mirror");
    const host = createHost(join(disk.directory, "host"), bundle, {
      mirror: `${server.url}/mirror`,
      publicKey: operator.publicKey,
    });
    if (before) {
      await operator.publish(mirror, { web1: before });
      await host.apply();
    }
    await operator.publish(mirror, { web1: after }, "--deltas", "1");
    // For those who do it by hand: one archive of everything, and a plain binary cache.
    const whole = await operator.publish(join(www, "whole"), { web1: after }, "--whole");
    const { archive, closureSize } = whole.release.hosts.web1;
    mkdirSync(join(www, "cache"));
    const tar = join(www, "whole/archives", `${archive.sha256}.tar`);
    await runChecked("tar", ["-x", "-f", tar, "-C", join(www, "cache")]);
    const fresh = await newNars(join(www, "cache"), before, after);
    const floor = fresh.reduce((sum, bytes) => sum + bytes, 0);

    const sides = {
      "nixos-pull apply": async (root, url) => {
        const one = createHost(root, bundle, {
          mirror: `${url}/mirror`,
          publicKey: operator.publicKey,
        });
        let staged = 0;
        const run = await one.apply({
          onSample: () => (staged = Math.max(staged, bytesBelow(join(root, "state/staging")))),
        });
        return { ...run, staged };
      },
      "nix copy --from http://": (root, url) =>
        importByHand(root, `${url}/cache`, [after], operator.publicKey),
      "curl, tar -x, nix copy": async (root, url) => {
        const from = `${url}/whole/archives/${archive.sha256}.tar`;
        const unpacked = await unpackByHand(root, from);
        const cache = `file://${unpacked.directory}`;
        const copied = await importByHand(root, cache, [after], operator.publicKey);
        return { seconds: unpacked.seconds + copied.seconds };
      },
    };
    const rows = [];
    for (const [side, run] of Object.entries(sides)) {
      const cells = [];
      let facts = null;
      for (const rate of RATES) {
        const perSecond = rate === null ? null : (rate * 1e6) / 8;
        if (facts && perSecond && facts.wire / perSecond > longest) {
          cells.push(`(${formatSeconds(facts.wire / perSecond)})`);
          continue;
        }
        const root = join(disk.directory, "run");
        rmSync(root, { recursive: true, force: true });
        if (before) cpSync(host.root, root, { recursive: true, verbatimSymlinks: true });
        else mkdirSync(root);
        spawnSync("sync");
        const link = await startSlowLink(Number(new URL(server.url).port), perSecond);
        const result = await run(root, link.url);
        link.stop();
        // An update that a power cut takes away again is not done; the agent flushes it itself.
        const flushing = performance.now();
        spawnSync("sync");
        const seconds = result.seconds + (performance.now() - flushing) / 1000;
        facts ??= { wire: link.bytes(), ...result };
        cells.push(formatSeconds(seconds));
        say(`${scenario}: ${side}, ${rate ?? "no"} limit: ${cells.at(-1)}`);
      }
      const { wire, peakRssBytes, staged } = facts;
      rows.push([
        side,
        wire < 1e6 ? `${(wire / 1e3).toFixed(1)} kB` : formatMegabytes(wire),
        wire > floor / 10 ? formatRatio(wire / floor) : `1/${Math.round(floor / wire)}`,
        ...cells,
        staged === undefined ? "" : formatMegabytes(peakRssBytes),
        staged === undefined ? "" : `${((100 * staged) / closureSize).toFixed(1)} %`,
      ]);
    }
    server.stop();
    printTable(
      `${scenario}: new zstd NARs of ${(floor / 1e6).toFixed(3)} MB for a closure of ` +
        `${formatMegabytes(closureSize)}; one round`,
      [
        ...["", "wire", "to new NARs", "loopback", "100 Mbit/s", "10 Mbit/s", "1 Mbit/s"],
        ...["peak RSS", "peak staging"],
      ],
      rows,
    );
  }
});

function bytesBelow(root) {
  let bytes = 0;
  try {
    for (const name of readdirSync(root, { recursive: true })) {
      const found = lstatSync(join(root, name));
      if (found.isFile()) bytes += found.size;
    }
  } catch {
    // Something was removed in this moment; the next look sees the rest.
  }
  return bytes;
}
