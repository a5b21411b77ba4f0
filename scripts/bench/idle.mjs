// An agent with nothing to do: CPU, bytes and memory of polls that are answered by 304.
//
// Usage: idle.mjs [--seconds 60]
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { runBenchmark, say } from "./support/benchmark.mjs";
import { startNginx, wireBytes } from "./support/nginx.mjs";
import { cpuTimes, memoryOf } from "./support/process-usage.mjs";
import { formatMegabytes, printTable, readOptions } from "./support/report.mjs";
import { createHost, createOperator } from "./support/sandbox.mjs";

const { seconds } = readOptions({ seconds: 60 });

const HOST_COUNTS = [10, 1_000, 10_000];
/** The compiler and the garbage collector find their rhythm before anything is counted. */
const WARM_UP_MS = 10_000;

await runBenchmark(async (workspace) => {
  const { directory, bundle } = workspace;
  const operator = await createOperator(workspace);
  const core = await importCore(directory);
  const rows = [];
  for (const count of HOST_COUNTS) {
    say(`idling with a manifest of ${count} hosts`);
    const home = join(directory, `hosts-${count}`);
    const mirror = join(home, "mirror");
    const channel = join(mirror, "channels/stable");
    mkdirSync(channel, { recursive: true });
    const manifest = fleetManifest(count);
    const envelope = core.sealEnvelope(core.encodeManifest(manifest), [
      core.parseSecretKey(operator.secretKey),
    ]);
    writeFileSync(join(channel, "manifest.json"), envelope);
    const server = await startNginx(mirror, join(home, "nginx"));
    workspace.onEnd(server.stop);

    const host = createHost(join(home, "host"), bundle, {
      ...{ mirror: server.url, publicKey: operator.publicKey, hostname: hostname(0) },
      poll: { interval: "1s", jitter: "0s" },
    });
    beTheRelease(host, manifest.hosts[hostname(0)].toplevel);
    const agent = spawn(process.execPath, [bundle, "run", "--config", host.configFile], {
      env: host.env,
      stdio: ["ignore", "ignore", "inherit"],
    });
    workspace.onEnd(() => agent.kill("SIGKILL"));

    await sleep(WARM_UP_MS);
    const before = { requests: server.requests().length, cpu: cpuTimes(agent.pid) };
    const started = performance.now();
    await sleep(seconds * 1000);
    const elapsed = (performance.now() - started) / 1000;
    const cpu = cpuTimes(agent.pid);
    const polls = server.requests().slice(before.requests);
    const { residentBytes, peakRssBytes } = memoryOf(agent.pid);
    agent.kill("SIGTERM");
    server.stop();
    if (polls.length === 0 || polls.some(({ status }) => status !== 304)) {
      throw new Error(`expected polls answered by 304, found ${JSON.stringify(polls.slice(0, 3))}`);
    }

    const perPoll = (from) => ((1000 * (cpu[from] - before.cpu[from])) / polls.length).toFixed(1);
    const daily = ((cpu.own + cpu.children - before.cpu.own - before.cpu.children) / polls.length) * 96;
    rows.push([
      String(count),
      formatMegabytes(envelope.length),
      `${polls.length} in ${elapsed.toFixed(0)} s`,
      `${perPoll("own")} ms`,
      `${perPoll("children")} ms`,
      `${daily.toFixed(1)} s`,
      `${Math.round(wireBytes(polls) / polls.length)} B`,
      formatMegabytes(residentBytes),
      formatMegabytes(peakRssBytes),
    ]);
  }
  printTable(
    "nixos-pull run with nothing to do, every poll answered by 304. Wire: HTTP both ways, without TCP, IP and TLS",
    [
      ...["hosts", "manifest", "polls", "CPU per poll", "its children's"],
      ...["CPU a day at 15 min", "wire per poll", "RSS", "peak RSS"],
    ],
    rows,
  );
});

const hostname = (at) => `host${at}`;

/** A release of many hosts, as `nixos-pull publish` would write it; only the sizes matter. */
function fleetManifest(count) {
  const digest = (text) => createHash("sha256").update(text).digest("hex");
  const now = Date.now();
  const hosts = Array.from({ length: count }, (_, at) => {
    // Hex digits without the e are Nix's too.
    const hash = digest(`toplevel ${at}`).replaceAll("e", "z").slice(0, 32);
    return [
      hostname(at),
      {
        toplevel: `/nix/store/${hash}-nixos-system-${hostname(at)}-24.05.20240531.63dacb4`,
        closureSize: 1_736_123_888 + at,
        archive: {
          sha256: digest(`archive ${at}`),
          size: 616_249_344 + at,
          index: { sha256: digest(`index ${at}`), size: 60_000 + at },
        },
      },
    ];
  });
  return {
    formatVersion: 1,
    channel: "stable",
    sequence: 1,
    createdAt: new Date(now).toISOString(),
    expiresAt: new Date(now + 24 * 3600 * 1000).toISOString(),
    defaults: { activation: { mode: "switch" } },
    hosts: Object.fromEntries(hosts),
  };
}

/** Makes the host what the release says: its profile and its running system are there already. */
function beTheRelease({ profiles, paths, root }, toplevel) {
  mkdirSync(profiles, { recursive: true });
  mkdirSync(join(root, "run"));
  symlinkSync(toplevel, join(profiles, "system-1-link"));
  symlinkSync("system-1-link", paths.profile);
  symlinkSync(toplevel, paths.currentSystem);
}

/** The agent's own formats: the benchmark forges no manifest by itself. */
async function importCore(directory) {
  const outfile = join(directory, "core.mjs");
  await build({
    stdin: {
      contents: `
        export { sealEnvelope } from "./core/envelope.ts";
        export { encodeManifest } from "./core/manifest.ts";
        export { parseSecretKey } from "./core/signing-key.ts";`,
      resolveDir: fileURLToPath(new URL("../../agent", import.meta.url)),
    },
    bundle: true,
    platform: "node",
    format: "esm",
    outfile,
    logLevel: "warning",
  });
  return import(pathToFileURL(outfile).href);
}
