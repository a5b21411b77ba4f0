// Updates of machines that real boot loaders start: systems that never come up, one that comes
// up and is not healthy, and one that is. Each is tried by one boot; whatever happens, the next
// reset starts the proven system.
//
//   npm run test:boot-loaders -- [LOADER…] [--case CASE]…
//
// NIXOS_PULL_BUNDLE: a bundle instead of one built from the sources.
import { Buffer } from "node:buffer";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual, parseArgs } from "node:util";
import { buildAgent } from "../../../scripts/build.mjs";
import { createMachine, run } from "../power-cut/machine.mjs";
import { buildSystem, createMirror } from "../power-cut/release-mirror.mjs";
import { LOADERS, UUID_FILE } from "./loaders.mjs";

const BOOT_TIMEOUT_MS = 5 * 60_000;
/** An emulated machine on a busy one is slow. */
const UPDATE_TIMEOUT_MS = 15 * 60_000;
const LOOK_MS = 4_000;

/** The kernel's command line of every system. */
const PARAMETERS =
  "console=ttyS0 quiet mitigations=off net.ifnames=0 audit=0 systemd.show_status=0 panic=5";

const FAILING = ["[Service]", "Type=oneshot", "ExecStart=/bin/false", "[Install]"];

/**
 * What is released: `system` has more arguments of toplevel.nix, `console` is what shows that
 * the trial is under way, `needsReset` says that the machine then stands still until somebody
 * resets it, and `code` is why the release is denied; a good one is not.
 */
const CASES = {
  panic: {
    ...{ code: "BOOT_TRIAL_FAILED", console: /Kernel panic/ },
    parameters: "rdinit=/nope",
  },
  good: { code: null, mode: "switch" },
  unhealthy: {
    code: "HEALTH_FAILED",
    units: { "bad.service": [...FAILING, "WantedBy=multi-user.target"].join("\n") },
  },
  "no kernel": { code: "BOOT_TRIAL_FAILED", needsReset: true, kernel: "zeros" },
  "hanging initrd": {
    ...{ code: "BOOT_TRIAL_FAILED", console: /initrd: hangs/, needsReset: true },
    parameters: "test.initrd=hang",
  },
  "missing root": {
    ...{ code: "BOOT_TRIAL_FAILED", console: /initrd: no root/ },
    parameters: "root=/dev/nope",
  },
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { case: { type: "string", multiple: true, default: Object.keys(CASES) } },
});
const names = positionals.length > 0 ? positionals : Object.keys(LOADERS);

const directory = await mkdtemp(
  join(process.env.NIXOS_PULL_HOSTS ?? "/var/tmp", "nixos-pull-loaders-"),
);
const image = await run(fileURLToPath(new URL("build-image", import.meta.url)));
const bundle =
  process.env.NIXOS_PULL_BUNDLE ?? (await buildAgent(join(tmpdir(), "nixos-pull-loaders.cjs")));
await writeFile(join(directory, "zeros"), Buffer.alloc(1024 * 1024));
const kernels = { real: join(image, "kernel"), zeros: join(directory, "zeros") };

const ends = [];
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => void end().then(() => process.exit(130)));
}
const results = [];
for (const name of names) results.push(...(await playLoader(name)));
await end();
for (const { loader, name, seconds, error } of results) {
  console.log(`${error === null ? "passed" : "FAILED"}: ${loader}, ${name}: ${seconds} s`);
}
const failures = results.filter(({ error }) => error !== null).length;
console.log(`${results.length - failures} passed, ${failures} failed`);
process.exit(failures === 0 ? 0 : 1);

async function end() {
  for (const close of ends.splice(0)) await close();
  await rm(directory, { recursive: true, force: true });
}

/** Plays all cases, one after another, on one machine; ends with the first that fails. */
async function playLoader(name) {
  const loader = LOADERS[name];
  const home = join(directory, name);
  await mkdir(home);
  const mirror = await createMirror(home, bundle);
  const hardware = loader.hardware(home);
  const machine = await createMachine(home, { image, hardware, restarts: true });
  ends.push(async () => {
    mirror.close();
    await machine.remove();
  });
  const played = [];
  const host = { name, loader, home, mirror, machine, generation: 1, proven: "" };
  const play = async (what, work) => {
    const started = performance.now();
    const error = await work().then(
      () => null,
      (thrown) => thrown,
    );
    const seconds = ((performance.now() - started) / 1000).toFixed(0);
    played.push({ loader: name, name: what, seconds, error });
    console.log(`${name}, ${what}: ${error === null ? "passed" : "failed"} after ${seconds} s`);
    if (error === null) return true;
    console.error(error);
    await showLogs(host);
    return false;
  };

  const isUp = await play("first boot", () => firstBoot(host));
  for (const key of isUp ? values.case : []) {
    if (!(await play(key, () => playCase(host, key, CASES[key])))) break;
  }
  await machine.cut();
  return played;
}

/** Installs the first system by its own installer, and waits until its agent has polled. */
async function firstBoot(host) {
  const { loader, home, machine } = host;
  host.proven = await build(host, {});
  await machine.install(host.proven);
  await machine.withDisk(async (root) => {
    const boot = join(root, "boot");
    await rm(join(boot, "loader"), { recursive: true });
    await writeFile(join(boot, UUID_FILE.name), UUID_FILE.contents);
    await run("chroot", root, `${host.proven}/install-boot-loader`, host.proven);
    await loader.install(home, image, boot);
    await run("sh", "-c", 'rm -rf "$1"/*', "sh", boot);
  });
  await host.mirror.publish(host.proven);
  machine.start();
  const isReady = ({ booted, record }) =>
    booted === host.proven && record?.state.name === "Idle" && record.committed !== null;
  await machine.waitForReport(isReady, "the first boot", BOOT_TIMEOUT_MS + UPDATE_TIMEOUT_MS);
  await expectNext(host, { default: host.proven, oneShot: null });
}

async function playCase(host, key, { code, mode = "boot", ...parts }) {
  const { machine, proven, loader } = host;
  host.generation++;
  const to = await build(host, parts);
  const said = async () => (await machine.console()).length;
  const begin = await said();
  const { boot } = await machine.waitForReport(() => true, "a report", BOOT_TIMEOUT_MS);
  const watch = watchDefault(host, to);
  await host.mirror.publish(to, "--mode", mode);

  const isArmed = ({ record }) =>
    record?.pendingReboot?.trial === true &&
    record.pendingReboot.release.toplevel === to &&
    record.state.name === "Idle";
  await machine.waitForReport(isArmed, "a trial that is armed", UPDATE_TIMEOUT_MS);
  await expectNext(host, { default: proven, oneShot: to });

  const sign = parts.kernel === "zeros" ? loader.refusal : parts.console;
  if (sign !== undefined) {
    await waitForText(machine, begin, sign, BOOT_TIMEOUT_MS);
    // The loader forgets the trial before it starts it.
    await expectNext(host, { default: proven, oneShot: null });
    if (parts.needsReset === true) await machine.reset();
  } else {
    const isTried = ({ booted, boot: now }) => now !== boot && booted === to;
    await machine.waitForReport(isTried, "the trial", BOOT_TIMEOUT_MS);
    if (code === null) {
      const isJudged = ({ booted, record }) => booted === to && record?.state.name === "Verifying";
      await machine.waitForReport(isJudged, "the verdict in the making", UPDATE_TIMEOUT_MS);
      await expectNext(host, { default: proven, oneShot: null });
    }
  }

  const at = code === null ? to : proven;
  const isThrough = (report) =>
    isAtRest(report, at) &&
    report.boot !== boot &&
    (code === null) !== report.record.denied.some((it) => it.toplevel === to);
  const last = await machine.waitForReport(isThrough, `${at} at rest`, UPDATE_TIMEOUT_MS);
  await watch.end();
  await expectNext(host, { default: at, oneShot: null });
  const denial = last.record.denied.find(({ toplevel }) => toplevel === to);
  expectEqual(
    "the denial",
    denial && { code: denial.reason.code, mode: denial.mode },
    code === null ? undefined : { code, mode },
  );
  if (code !== null) console.log(`  ${key}: ${denial.reason.message}`);
  if (sign !== undefined) {
    const tried = (await machine.console()).slice(begin).match(new RegExp(sign, `${sign.flags}g`));
    const expected = parts.kernel === "zeros" ? tried : [tried[0]];
    expectEqual("the times it was tried", tried, expected);
  }
  host.proven = at;
}

/** Whether a host is a system and nothing else: booted, running, profile and roots. */
function isAtRest({ booted, current, profile, agent, roots, staging, failed, record }, toplevel) {
  return (
    // A system that no update brought has no root of the agent's.
    [booted, current, profile, roots.current ?? toplevel].every((it) => it === toplevel) &&
    record?.state.name === "Idle" &&
    record.pendingReboot === null &&
    record.committed?.toplevel === toplevel &&
    agent === "active" &&
    failed.length === 0 &&
    staging.length === 0
  );
}

/** What the loader would start, as it is on the disks of a machine that stands still. */
function look({ machine, loader, home }) {
  return machine.standStill(() => loader.look(home));
}

async function expectNext(host, expected) {
  const { files, ...found } = await look(host);
  expectEqual(`what is started next (${JSON.stringify(files)})`, found, expected);
}

/**
 * Looks again and again: the default is proven, and another one only once it was booted. While a
 * new menu is on its way to the disk, there may be none without the file system's journal.
 */
function watchDefault(host, to) {
  const ending = new AbortController();
  let looks = 0;
  let unreadable = 0;
  const ended = (async () => {
    while (!ending.signal.aborted) {
      const { default: found } = await look(host);
      looks++;
      if (found === null) unreadable++;
      else if (found !== host.proven) {
        const report = await host.machine.waitForReport(() => true, "a report", BOOT_TIMEOUT_MS);
        const isProven = found === to && report.booted === to;
        if (!isProven) throw new Error(`the default is ${found} while ${report.booted} was booted`);
      }
      await delay(LOOK_MS, undefined, { signal: ending.signal }).catch(() => undefined);
    }
  })();
  ended.catch(() => undefined);
  return {
    async end() {
      ending.abort();
      await ended;
      console.log(`  looked ${looks} times at the default, ${unreadable} times there was no menu`);
    },
  };
}

/** Waits for a text on the console, behind a place in it. */
async function waitForText(machine, begin, sign, timeoutMs) {
  const limit = performance.now() + timeoutMs;
  for (;;) {
    const text = (await machine.console()).slice(begin);
    if (sign.test(text)) return;
    if (performance.now() > limit) {
      throw new Error(`expected ${sign} on the console:\n${text.slice(-2000)}`);
    }
    await delay(200);
  }
}

function build({ loader, mirror, generation }, { kernel = "real", parameters = "", units = {} }) {
  return buildSystem({
    ...loader.system,
    generation: String(generation),
    bundle,
    units,
    kernel: `6.12.${generation}`,
    kernelFile: kernels[kernel],
    initrdFile: join(image, "initrd.gz"),
    kernelParameters: `${PARAMETERS} ${parameters}`,
    agentConfig: {
      ...mirror.settings,
      // Each poll is work for an emulated processor.
      poll: { interval: "10s", jitter: "0s" },
      // Each power cut may be one of the tries.
      activation: { attempts: 100, retryWait: "2s" },
      limits: { retryBase: "2s", retryMax: "20s" },
      health: { settle: "5s", timeout: "20s", interval: "2s" },
      reboot: { policy: "now", grace: "12s" },
      generations: { keep: 3 },
    },
  });
}

function expectEqual(what, found, expected) {
  if (isDeepStrictEqual(found, expected)) return;
  throw new Error(`${what}: expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`);
}

async function showLogs({ machine }) {
  const lines = (await machine.console()).split("\n").filter((line) => !/PROBE \{/.test(line));
  console.error(lines.join("\n").slice(-20_000));
  await machine.cut();
  const journal = ["journalctl", "--no-pager", "--unit=nixos-pull*", "--lines=80"];
  const text = await machine.withDisk((root) => run("chroot", root, ...journal)).catch(String);
  console.error(text);
}
