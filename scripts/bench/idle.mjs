// An agent with nothing to do: CPU, bytes and memory of polls that are answered by 304.
//
// Usage: idle.mjs [--seconds 60]
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { runBenchmark, say } from "./support/benchmark.mjs";
import { fleetManifest, hostname, importCore } from "./support/fleet-manifest.mjs";
import { startNginx, wireBytes } from "./support/nginx.mjs";
import { cpuTimes, memoryOf } from "./support/process-usage.mjs";
import { formatMegabytes, printTable, readOptions } from "./support/report.mjs";
import { createHost, createOperator, programArguments } from "./support/sandbox.mjs";

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
      log: { level: "warn", format: "json" },
    });
    beTheRelease(host, manifest.hosts[hostname(0)].toplevel);
    const agent = spawn(
      process.execPath,
      programArguments(bundle, ["run", "--config", host.configFile]),
      {
        env: host.env,
        stdio: ["ignore", "ignore", "inherit"],
      },
    );
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
    const daily =
      ((cpu.own + cpu.children - before.cpu.own - before.cpu.children) / polls.length) * 96;
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

/** Makes the host what the release says: its profile and its running system are there already. */
function beTheRelease({ profiles, paths, root }, toplevel) {
  mkdirSync(profiles, { recursive: true });
  mkdirSync(join(root, "run"));
  symlinkSync(toplevel, join(profiles, "system-1-link"));
  symlinkSync("system-1-link", paths.profile);
  symlinkSync(toplevel, paths.currentSystem);
}
