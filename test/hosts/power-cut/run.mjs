// Cuts the power of a machine at random moments of updates and checks after each that it
// boots the old or the new system, and then gets to the new one by itself, or back to the
// old one where the new one is bad.
//
//   npm run test:power-cut -- [CUTS] [SEED]
//
// NIXOS_PULL_BUNDLE: a bundle instead of one built from the sources.
import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, readlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as delay } from "node:timers/promises";
import { buildAgent } from "../../../scripts/build.mjs";
import { createMachine, run } from "./machine.mjs";
import { buildSystem, createMirror } from "./release-mirror.mjs";

const BOOT_TIMEOUT_MS = 4 * 60_000;
/** An emulated machine on a busy one is slow: 2 to 7 minutes are usual. */
const UPDATE_TIMEOUT_MS = 20 * 60_000;
/** Of the cuts, how many are followed by one more before the update is finished. */
const SECOND_CUTS = 0.25;

/** States in which valid paths need not be on the disk yet. */
const IMPORTING = new Set(["Fetching", "Failed"]);

/** States of an update in which nothing but the old system may be the boot default. */
const UNPROVEN = new Set([
  "Candidate",
  "Fetching",
  "Imported",
  "Staged",
  "Activating",
  "Verifying",
]);
/** Of the releases, how many have a system whose unit fails. */
const BAD_RELEASES = 0.25;

const cuts = Number(process.argv[2] ?? 5);
const seed = Number(process.argv[3] ?? Math.floor(Math.random() * 2 ** 31));
const random = randomFrom(seed);
console.log(`power cuts: ${cuts}, seed ${seed}`);

const directory = await mkdtemp(
  join(process.env.NIXOS_PULL_HOSTS ?? "/var/tmp", "nixos-pull-power-"),
);
const bundle =
  process.env.NIXOS_PULL_BUNDLE ?? (await buildAgent(join(tmpdir(), "nixos-pull-power.cjs")));
const mirror = await createMirror(directory, bundle);
const machine = await createMachine(directory);
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
  let from = await build(1, false);
  await machine.install(from);
  let started = performance.now();
  machine.start();
  await machine.waitForReport(() => true, "the first boot", BOOT_TIMEOUT_MS);
  console.log(`boot: ${seconds(started)} s`);

  // One update without a cut says how long the moments are from which a cut is chosen.
  let to = await build(2, false);
  started = performance.now();
  await mirror.publish(to);
  await machine.waitForReport(isFinished(to), "the first update", UPDATE_TIMEOUT_MS);
  let updateMs = performance.now() - started;
  console.log(`update: ${seconds(started)} s`);
  /** Where the roots of a host that had many updates may lead. */
  const built = [from, to];
  from = to;

  const phases = new Map();
  const counts = { old: 0, new: 0, bad: 0 };
  const releases = { good: 0, bad: 0 };
  let done = 0;
  for (let generation = 3; done < cuts; generation++) {
    const isBad = random() < BAD_RELEASES;
    to = await build(generation, isBad);
    built.push(to);
    releases[isBad ? "bad" : "good"]++;
    const isThrough = isBad ? isBack(from, to) : isFinished(to);
    const doneBefore = done;
    await mirror.publish(to);
    do {
      // Squared: what comes before the long switch is hit as well.
      const after = random() ** 2 * updateMs;
      await delay(after);
      const last = await machine.waitForReport(() => true, "a report", BOOT_TIMEOUT_MS);
      if (isThrough(last)) {
        // The machine was quicker than it was before; that is no cut.
        updateMs = after;
        break;
      }
      await machine.cut();
      done++;
      const disk = await machine.withDisk((root) => inspectDisk(root, [from, to], built));
      started = performance.now();
      machine.start();
      const report = await machine.waitForReport(
        () => true,
        "a boot after the cut",
        BOOT_TIMEOUT_MS,
      );
      // What was the boot default when the power went is what is booted.
      if (report.booted !== disk.bootDefault) {
        throw new Error(`cut ${done}: booted ${report.booted}, not ${disk.bootDefault}`);
      }
      // Until all is imported, the agent itself doubts what is new.
      const old = (await run("nix-store", "--query", "--requisites", from)).split("\n");
      const damaged = disk.damaged.filter(
        (path) => old.includes(path) || !IMPORTING.has(disk.state),
      );
      if (damaged.length > 0) {
        throw new Error(`cut ${done} in ${disk.state}: damaged: ${damaged.join(", ")}`);
      }
      if (UNPROVEN.has(disk.state) && disk.bootDefault !== from) {
        throw new Error(`cut ${done} in ${disk.state}: the boot default is ${disk.bootDefault}`);
      }
      for (const what of ["current", "bootDefault", "profile"]) {
        if (![from, to].includes(report[what])) {
          throw new Error(`cut ${done}: ${what} is ${report[what]}, neither ${from} nor ${to}`);
        }
      }
      const found = report.booted === from ? "old" : isBad ? "bad" : "new";
      counts[found]++;
      phases.set(disk.state, (phases.get(disk.state) ?? 0) + 1);
      console.log(
        `cut ${done} after ${(after / 1000).toFixed(1)} s in ${disk.state}, ${isBad ? "bad" : "good"} release: ` +
          `booted the ${found} system in ${seconds(started)} s` +
          disk.damaged.map((path) => `; damaged: ${path}`).join(""),
      );
      if (found === "bad") throw new Error(`cut ${done}: a bad system had become the boot default`);
    } while (done < cuts && random() < SECOND_CUTS);
    await machine.waitForReport(
      isThrough,
      isBad ? `${from} again, and ${to} denied` : `the end of the update to ${to}`,
      UPDATE_TIMEOUT_MS,
    );
    if (done > doneBefore) console.log(`  finished ${seconds(started)} s after power was back`);
    if (!isBad) from = to;
  }

  await machine.cut();
  await machine.withDisk(async (root) => {
    const said = await run(...nixStoreIn(root), "--verify", "--check-contents");
    if (said !== "") throw new Error(`the store is damaged: ${said}`);
  });
  const hit = [...phases].map(([state, count]) => `${state} ${count}`).sort();
  console.log(`releases: ${releases.good} good, ${releases.bad} bad; cut in: ${hit.join(", ")}`);
  console.log(
    `${done} power cuts (seed ${seed}): ${counts.old} booted the old system, ${counts.new} the new one, ${counts.bad} a bad one`,
  );
  console.log(`${done} passed, 0 failed`);
}

/**
 * What is on the disk of a machine that was cut off, its journal replayed as the boot
 * does it. Throws where the boot default, the profile, a root, a memory or the history is
 * not what one of the two systems' hosts may have.
 */
async function inspectDisk(root, systems, earlier) {
  const link = (path) => readlink(join(root, path));
  const expectOneOf = (what, found) => {
    if (!systems.includes(found)) {
      throw new Error(`cut off: ${what} is ${found}, none of ${systems.join(", ")}`);
    }
  };
  const bootDefault = (await readFile(join(root, "boot/loader/default"), "utf8")).trim();
  expectOneOf("the boot default", bootDefault);
  const profiles = "nix/var/nix/profiles";
  expectOneOf("the profile", await link(join(profiles, await link(join(profiles, "system")))));
  const roots = "nix/var/nix/gcroots/nixos-pull";
  for (const name of await readdir(join(root, roots)).catch(() => [])) {
    // A directory: what of a begun import is in the store.
    if (name === "pending-paths") continue;
    const target = await link(join(roots, name));
    // What was there before the last update stays held until this one is committed.
    if (name === "previous" && earlier.includes(target)) continue;
    if (!/^(agent|\..*\.tmp)$/.test(name)) expectOneOf(`root ${name}`, target);
  }
  const state = join(root, "var/lib/nixos-pull");
  const read = async (name) => {
    const text = await readFile(join(state, name), "utf8").catch(() => null);
    if (text === null) return null;
    const { sha256, value } = JSON.parse(text);
    if (createHash("sha256").update(JSON.stringify(value)).digest("hex") !== sha256) {
      throw new Error(`cut off: ${name} does not have its checksum`);
    }
    return value;
  };
  const record = await read("state.json");
  await read("trust.json");
  const history = await readFile(join(state, "history.jsonl"), "utf8").catch(() => "");
  // Only the last line may be torn.
  for (const line of history.split("\n").slice(0, -1)) JSON.parse(line);

  const closure = (await run("nix-store", "--query", "--requisites", ...systems)).split("\n");
  const nixStore = nixStoreIn(root);
  const said = await run(...nixStore, "--check-validity", "--print-invalid", ...closure);
  const invalid = said.split("\n");
  const valid = closure.filter((path) => !invalid.includes(path));
  const damaged = [];
  for (const path of valid) {
    await run(...nixStore, "--verify-path", path).catch(() => damaged.push(path));
  }
  return { bootDefault, state: record?.state.name ?? "no state", damaged };
}

/** This machine's Nix, on a store below a directory. */
function nixStoreIn(root) {
  return ["nix-store", "--store", `local?root=${root}`];
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

/** Whether a report is of a host that is back at `toplevel` and does not take `denied` again. */
function isBack(toplevel, denied) {
  return (report) =>
    isFinished(toplevel)(report) && report.record.denied.some((it) => it.toplevel === denied);
}

/** A system that differs from all others in a service and in 2 MB that do not compress; a bad one's service fails. */
function build(generation, isBad) {
  const service = [
    "[Service]",
    `ExecStart=/bin/${isBad ? "false" : "sleep infinity"}`,
    `Environment=GENERATION=${generation}`,
    "[Install]",
    "WantedBy=multi-user.target",
  ];
  return buildSystem({
    generation: String(generation),
    // Every update changes the agent's unit too.
    agent: generation % 2 === 0 ? "changed" : "normal",
    bundle,
    payloadBytes: 2_000_000,
    units: { "web.service": service.join("\n") },
    agentConfig: {
      ...mirror.settings,
      poll: { interval: "2s", jitter: "0s" },
      // Each power cut may be one of the tries.
      activation: { attempts: 100, retryWait: "2s" },
      limits: { retryBase: "2s", retryMax: "20s" },
      health: { settle: "2s", timeout: "10s", interval: "2s" },
    },
  });
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
  mirror.close();
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
