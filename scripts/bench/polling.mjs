// A mirror and its fleet: what it costs one nginx that many hosts poll, with nothing new and
// when a release comes. Hosts are simulated: a connection of its own for every poll, from a
// loopback address of its own, with the agent's headers.
//
// Usage: polling.mjs [--hosts 10000]
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { runBenchmark, say } from "./support/benchmark.mjs";
import { fleetManifest, importCore } from "./support/fleet-manifest.mjs";
import { startNginx, wireBytes } from "./support/nginx.mjs";
import { cpuTimes } from "./support/process-usage.mjs";
import { formatMegabytes, printTable, readOptions } from "./support/report.mjs";
import { createOperator } from "./support/sandbox.mjs";

const { hosts: most } = readOptions({ hosts: 10_000 });

/** Fleets, the largest last. */
const FLEETS = [10, 1_000, most];
/** So many polls are counted for each fleet, whatever its size. */
const POLLS = most;
/** Whole manifests are read by so many hosts at most: a large fleet would read 46 GB. */
const FULL_READS = 200;
const AT_ONCE = 50;
const PATH = "/channels/stable/manifest.json";
/** Polls a day, one every 15 minutes. */
const DAILY_POLLS = 96;

await runBenchmark(async (workspace) => {
  const { directory } = workspace;
  const operator = await createOperator(workspace);
  const core = await importCore(directory);
  const rows = [];
  for (const count of FLEETS) {
    say(`${count} hosts`);
    const home = join(directory, `fleet-${count}-${rows.length}`);
    const mirror = join(home, "mirror");
    mkdirSync(join(mirror, "channels/stable"), { recursive: true });
    const keys = [core.parseSecretKey(operator.secretKey)];
    const file = join(mirror, PATH);
    writeFileSync(file, core.sealEnvelope(core.encodeManifest(fleetManifest(count)), keys));
    const server = await startNginx(mirror, join(home, "nginx"));
    workspace.onEnd(server.stop);
    const worker = server.workerPid();

    /** So many polls by hosts in turn; gives what nginx spent and what went over the wire. */
    const measure = async (polls, headers) => {
      const before = { cpu: cpuTimes(worker).own, requests: server.requests().length };
      const started = performance.now();
      await inParallel(polls, (at) => poll(server.url, at % count, headers));
      const seconds = (performance.now() - started) / 1000;
      const requests = server.requests().slice(before.requests);
      return { requests, seconds, cpu: cpuTimes(worker).own - before.cpu };
    };
    const full = await measure(Math.min(count, FULL_READS), {});
    const { etag, "last-modified": modified } = await poll(server.url, 0, {});
    const validators = { "if-none-match": etag, "if-modified-since": modified };
    const idle = await measure(POLLS, validators);
    server.stop();

    const unchanged = idle.requests.filter(({ status }) => status === 304).length;
    if (idle.requests.length !== POLLS || unchanged !== POLLS) {
      throw new Error(
        `expected ${POLLS} answers of 304, found ${unchanged} of ${idle.requests.length}`,
      );
    }
    const perPoll = wireBytes(idle.requests) / POLLS;
    const size = statSync(file).size;
    const cpuPerPoll = idle.cpu / POLLS;
    rows.push([
      String(count),
      formatMegabytes(size),
      `${POLLS} in ${idle.seconds.toFixed(0)} s`,
      `${((100 * unchanged) / idle.requests.length).toFixed(0)} %`,
      `${Math.round(perPoll)} B`,
      `${(1e6 * cpuPerPoll).toFixed(0)} µs`,
      `${((100 * cpuPerPoll * count * DAILY_POLLS) / 86_400).toFixed(3)} %`,
      formatMegabytes(perPoll * count * DAILY_POLLS),
      `${((1e6 * full.cpu) / full.requests.length).toFixed(0)} µs`,
      formatMegabytes((wireBytes(full.requests) / full.requests.length) * count),
    ]);
  }
  printTable(
    `One nginx, one worker, and its fleet; ${AT_ONCE} polls at once. Wire: HTTP both ways, without TCP, IP and TLS`,
    [
      ...["hosts", "manifest", "polls", "304", "wire per poll", "CPU per poll"],
      ...["of a core at 15 min", "wire a day", "CPU per new manifest", "wire per release"],
    ],
    rows,
  );
});

/** One poll of one host; gives the answer's headers. */
function poll(url, at, headers) {
  return new Promise((resolve, reject) => {
    const asking = request(`${url}${PATH}`, {
      // A new connection each time: between two polls lies a quarter of an hour.
      agent: false,
      localAddress: `127.${1 + (at >> 16)}.${(at >> 8) & 255}.${at & 255}`,
      headers: { "accept-encoding": "identity", "user-agent": "nixos-pull", ...headers },
    });
    asking.once("error", reject);
    asking.once("response", (response) => {
      response.once("error", reject);
      response.once("end", () => resolve(response.headers));
      response.resume();
    });
    asking.end();
  });
}

/** Calls `work` for 0 to count - 1, so many at once. */
async function inParallel(count, work) {
  let next = 0;
  const worker = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, count) }, worker));
}
