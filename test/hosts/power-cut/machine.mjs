// A QEMU machine without KVM whose power can be cut: a SIGKILL of QEMU. What the guest's
// kernel had handed to its disk by then is on it, what it still held in memory is lost.
import { Buffer } from "node:buffer";
import { execFile, spawn } from "node:child_process";
import { copyFile, mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const BUILD_IMAGE = fileURLToPath(new URL("build-image", import.meta.url));
const NIX_CONF = fileURLToPath(new URL("../../closures/nix.conf", import.meta.url));
const MEGABYTES = 1024;

/** Runs a program; gives its output, trimmed; rejects with what it said where it fails. */
export async function run(command, ...args) {
  const { stdout } = await promisify(execFile)(command, args, {
    env: { ...process.env, NIX_USER_CONF_FILES: NIX_CONF },
    maxBuffer: 64 * 1024 * 1024,
  });
  return stdout.trim();
}

/** A machine below `directory` that is off and has no system. */
export async function createMachine(directory) {
  const image = await run(BUILD_IMAGE);
  const disk = join(directory, "disk");
  const mountPoint = join(directory, "mounted");
  await mkdir(mountPoint, { recursive: true });
  await run("cp", "--sparse=always", join(image, "disk"), disk);
  const boots = [];
  let qemu = null;

  const machine = {
    /** Console files of all boots, in order. */
    boots,

    /** Does `work` with the root of the machine's disk, which is off; its journal is replayed. */
    async withDisk(work) {
      if (qemu) throw new Error("the machine is on");
      await run("mount", "-o", "loop", disk, mountPoint);
      try {
        return await work(mountPoint);
      } finally {
        await run("umount", mountPoint);
      }
    },

    /** A copy of the disk as it is now. */
    async keepDisk(path) {
      await copyFile(disk, path);
    },

    /** Imports a system and makes it the profile and the boot default. */
    async install(toplevel) {
      await machine.withDisk(async (root) => {
        const store = ["--store", `local?root=${root}`];
        const profile = join(root, "nix/var/nix/profiles/system");
        const features = ["--extra-experimental-features", "nix-command"];
        await run("nix", "copy", ...features, "--no-check-sigs", "--to", store[1], toplevel);
        await run("nix-env", ...store, "--profile", profile, "--set", toplevel);
        await run("sh", "-c", 'echo "$1" >"$2"', "sh", toplevel, join(root, "boot/loader/default"));
      });
    },

    start() {
      const console = join(directory, `console-${boots.length + 1}`);
      boots.push(console);
      const kernelOptions =
        "console=ttyS0 quiet mitigations=off net.ifnames=0 audit=0 systemd.show_status=0";
      const child = spawn(
        "qemu-system-x86_64",
        [
          ...["-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max"],
          ...["-smp", "2", "-m", String(MEGABYTES)],
          ...["-nodefaults", "-no-user-config", "-display", "none"],
          ...["-kernel", join(image, "kernel"), "-initrd", join(image, "initrd")],
          ...["-append", kernelOptions, "-serial", `file:${console}`],
          // Not cached by QEMU itself: what the guest wrote is with this machine's kernel,
          // which outlives QEMU. A flush has nothing to add to that.
          ...["-drive", `file=${disk},if=none,id=disk,format=raw,cache=unsafe`],
          ...["-device", "virtio-blk-pci,drive=disk"],
          ...["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="],
        ],
        { stdio: ["ignore", "ignore", "inherit"] },
      );
      const started = { child, ended: null, why: null };
      started.ended = new Promise((resolve) => {
        child.once("error", (error) => {
          started.why = error.message;
          resolve();
        });
        child.once("close", (code, signal) => {
          started.why ??= `QEMU ended with ${signal ?? `exit code ${code}`}`;
          resolve();
        });
      });
      qemu = started;
    },

    /** Cuts the power: at once, in the middle of whatever it does. */
    async cut() {
      qemu?.child.kill("SIGKILL");
      await qemu?.ended;
      qemu = null;
    },

    /** What this boot printed to the console until now. */
    async console() {
      const text = await readFile(boots.at(-1) ?? "", "utf8").catch(() => "");
      return text.replaceAll("\r", "");
    },

    /** Waits until the console of this boot has a line for which `match` gives true. */
    async waitForLine(match, description, timeoutMs) {
      const end = performance.now() + timeoutMs;
      for (;;) {
        const text = await machine.console();
        const lines = text.split("\n").slice(0, -1);
        const found = lines.findLast(match);
        if (found !== undefined) return found;
        const why = qemu === null ? "the machine is off" : qemu.why;
        if (why !== null || text.includes("Kernel panic") || performance.now() > end) {
          throw new Error(
            `expected ${description} within ${timeoutMs / 1000} s${why === null ? "" : `, but ${why}`}; ` +
              `the console's end:\n${lines.slice(-15).join("\n")}`,
          );
        }
        await delay(200);
      }
    },

    /** Waits for a report of this boot for which `match` gives true; gives it. */
    async waitForReport(match, description, timeoutMs) {
      const line = await machine.waitForLine(
        (text) => {
          const report = reportIn(text);
          return report !== null && match(report);
        },
        description,
        timeoutMs,
      );
      return reportIn(line);
    },

    async remove() {
      await machine.cut();
      await run("umount", mountPoint).catch(() => undefined);
      await rm(directory, { recursive: true, force: true });
    },
  };
  return machine;
}

/** What the probe (probe.sh) said in a line, the agent's record decoded; null for others. */
function reportIn(line) {
  const json = /PROBE (\{.*\})$/.exec(line)?.[1];
  if (json === undefined) return null;
  try {
    const { state, roots, failed, staging, ...report } = JSON.parse(json);
    const words = (text) => text.split(" ").filter((word) => word !== "");
    const text = Buffer.from(state, "base64").toString();
    return {
      ...report,
      failed: words(failed),
      staging: words(staging),
      roots: Object.fromEntries(words(roots).map((root) => root.split("="))),
      record: text === "" ? null : JSON.parse(text).value,
    };
  } catch {
    return null;
  }
}
