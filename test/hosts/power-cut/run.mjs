// Cuts the power of a machine at random moments of updates and checks after each that it
// boots the old or the new system, and then gets to the new one by itself.
//
//   node test/hosts/power-cut/run.mjs [CUTS] [SEED]
//
// NIXOS_PULL_BUNDLE: a bundle instead of one built from the sources.
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { buildAgent } from "../../../scripts/build.mjs";
import { createMachine, run } from "./machine.mjs";

const BOOT_TIMEOUT_MS = 4 * 60_000;
const UPDATE_TIMEOUT_MS = 10 * 60_000;
/** Of the cuts, how many are followed by one more before the update is finished. */
const SECOND_CUTS = 0.25;
const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const cuts = Number(process.argv[2] ?? 5);
const seed = Number(process.argv[3] ?? Math.floor(Math.random() * 2 ** 31));
const random = randomFrom(seed);
console.log(`power cuts: ${cuts}, seed ${seed}`);

const directory = await mkdtemp(
  join(process.env.NIXOS_PULL_HOSTS ?? "/var/tmp", "nixos-pull-power-"),
);
const bundle =
  process.env.NIXOS_PULL_BUNDLE ?? (await buildAgent(join(tmpdir(), "nixos-pull-power.cjs")));
const mirror = join(directory, "mirror");
await mkdir(mirror);
const key = join(directory, "key");
await run(process.execPath, bundle, "keygen", "power-1", "--out", key);
const publicKey = (await readFile(`${key}.public`, "utf8")).trim();

const machine = await createMachine(directory);
const server = spawn(process.execPath, [here("../../../scripts/demo-server.mjs"), mirror], {
  stdio: ["ignore", "pipe", "inherit"],
});
const port = new URL(
  await new Promise((resolve) =>
    server.stdout.once("data", (data) => resolve(String(data).trim())),
  ),
).port;
let finished = false;
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => end(130));

try {
  await main();
  finished = true;
} catch (error) {
  console.error(error);
  await showLogs();
}
await end(finished ? 0 : 1);

async function main() {
  const systems = [null, await build(1)];
  await machine.install(systems[1]);
  let started = performance.now();
  machine.start();
  await machine.waitForReport(() => true, "the first boot", BOOT_TIMEOUT_MS);
  console.log(`boot: ${seconds(started)} s`);

  // One update without a cut says how long the moments are from which a cut is chosen.
  systems.push(await build(2));
  started = performance.now();
  await publish(systems[2]);
  await machine.waitForReport(isFinished(systems[2]), "the first update", UPDATE_TIMEOUT_MS);
  const updateMs = performance.now() - started;
  console.log(`update: ${seconds(started)} s`);

  const counts = { old: 0, new: 0 };
  let done = 0;
  for (let generation = 3; done < cuts; generation++) {
    const from = systems[generation - 1];
    const to = await build(generation);
    systems.push(to);
    await publish(to);
    do {
      const after = random() * updateMs * 1.1;
      await delay(after);
      await machine.cut();
      done++;
      started = performance.now();
      machine.start();
      const report = await machine.waitForReport(
        () => true,
        "a boot after the cut",
        BOOT_TIMEOUT_MS,
      );
      const found = report.booted === from ? "old" : report.booted === to ? "new" : null;
      if (found === null)
        throw new Error(`cut ${done}: booted ${report.booted}, neither ${from} nor ${to}`);
      counts[found]++;
      const state = report.record?.state.name ?? "none";
      console.log(
        `cut ${done} after ${(after / 1000).toFixed(1)} s: booted the ${found} system in ${seconds(started)} s, state ${state}`,
      );
    } while (done < cuts && random() < SECOND_CUTS);
    await machine.waitForReport(
      isFinished(to),
      `the end of the update to ${to}`,
      UPDATE_TIMEOUT_MS,
    );
    console.log(`  finished ${seconds(started)} s after power was back`);
  }

  await machine.cut();
  await machine.withDisk(async (root) => {
    const said = await run("chroot", root, "/usr/bin/nix-store", "--verify", "--check-contents");
    if (said !== "") throw new Error(`the store is damaged: ${said}`);
  });
  console.log(`${cuts} power cuts: ${counts.old} booted the old system, ${counts.new} the new one`);
  console.log(`${cuts} passed, 0 failed`);
}

/** Whether a report is of a host that is `toplevel` and nothing else. */
function isFinished(toplevel) {
  return ({ current, bootDefault, profile, failed, agent, roots, staging, record }) =>
    [current, bootDefault, profile, roots.current, record?.committed?.toplevel].every(
      (path) => path === toplevel,
    ) &&
    record.state.name === "Idle" &&
    failed.length === 0 &&
    agent === "active" &&
    staging.length === 0;
}

/** A system that differs from all others in a service and in 2 MB that do not compress. */
function build(generation) {
  const service = [
    "[Service]",
    "ExecStart=/bin/sleep infinity",
    `Environment=GENERATION=${generation}`,
    "[Install]",
    "WantedBy=multi-user.target",
  ];
  const agentConfig = {
    hostname: "web1",
    mirrors: [`http://10.0.2.2:${port}`],
    publicKeys: [publicKey],
    poll: { interval: "2s", jitter: "0s" },
    limits: { retryBase: "2s", retryMax: "20s" },
  };
  const json = JSON.stringify({
    generation: String(generation),
    // Every update changes the agent's unit too.
    agent: generation % 2 === 0 ? "changed" : "normal",
    bundle,
    payloadBytes: 2_000_000,
    units: { "web.service": service.join("\n") },
    agentConfig: JSON.stringify(agentConfig),
  });
  const expression = `{ json }: import ${here("../toplevel.nix")} (builtins.fromJSON json)`;
  return run(
    "nix-build",
    "--expr",
    expression,
    "--argstr",
    "json",
    json,
    "--attr",
    "system",
    "--no-out-link",
  );
}

function publish(toplevel) {
  const args = [
    "publish",
    "--mirror",
    mirror,
    "--key",
    `${key}.secret`,
    "--host",
    `web1=${toplevel}`,
  ];
  return run(process.execPath, bundle, ...args);
}

async function showLogs() {
  await machine.cut();
  const journal = await machine
    .withDisk((root) =>
      run("chroot", root, "journalctl", "--no-pager", "--unit=nixos-pull*", "--lines=80"),
    )
    .catch(String);
  console.error(journal);
}

async function end(exitCode) {
  server.kill();
  await machine.remove();
  process.exit(exitCode);
}

function seconds(since) {
  return ((performance.now() - since) / 1000).toFixed(1);
}

/** mulberry32: the same numbers for the same seed. */
function randomFrom(number) {
  let state = number >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
