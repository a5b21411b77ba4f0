// A QEMU machine without KVM whose power can be cut: a SIGKILL of QEMU. What the guest's
// kernel had handed to its disk by then is on it, what it still held in memory is lost.
import { Buffer } from "node:buffer";
import { execFile, spawn } from "node:child_process";
import { copyFile, mkdir, readFile, rm } from "node:fs/promises";
import { createConnection } from "node:net";
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

/** Starts the kernel and the initrd of an image directly: there is no boot loader. */
function startKernel(image) {
  const kernelOptions =
    "console=ttyS0 quiet mitigations=off net.ifnames=0 audit=0 systemd.show_status=0";
  return [
    ...["-kernel", join(image, "kernel"), "-initrd", join(image, "initrd")],
    ...["-append", kernelOptions],
  ];
}

/**
 * A machine below `directory` that is off and has no system. `image` is the directory of
 * its disk, and `hardware` has arguments of QEMU beside those of the first disk. With `restarts`, a
 * reset or a panic is no failure: QEMU ends with each reset and is started anew, because its
 * emulation becomes very slow after a reset of its own.
 */
export async function createMachine(directory, options = {}) {
  const image = options.image ?? (await run(BUILD_IMAGE));
  const { hardware = startKernel(image), restarts = false } = options;
  const disk = join(directory, "disk");
  const mountPoint = join(directory, "mounted");
  const monitor = join(directory, "monitor");
  await mkdir(mountPoint, { recursive: true });
  await run("cp", "--sparse=always", join(image, "disk"), disk);
  const boots = [];
  let qemu = null;
  let last = Promise.resolve();
  /** Does one thing after another with QEMU as a whole. */
  const exclusive = (work) => {
    const done = last.then(work);
    last = done.catch(() => undefined);
    return done;
  };

  /** Starts QEMU; what it prints goes behind what this boot printed already. */
  const begin = () => {
    const child = spawn(
      "qemu-system-x86_64",
      [
        ...["-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max"],
        ...["-smp", "2", "-m", String(MEGABYTES)],
        ...["-nodefaults", "-no-user-config", "-display", "none"],
        ...["-chardev", `file,id=console,path=${boots.at(-1)},append=on`],
        ...["-serial", "chardev:console"],
        ...["-monitor", `unix:${monitor},server=on,wait=off`],
        ...(restarts ? ["-no-reboot"] : []),
        // Not cached by QEMU itself: what the guest wrote is with this machine's kernel,
        // which outlives QEMU. A flush has nothing to add to that.
        ...["-drive", `file=${disk},if=none,id=disk,format=raw,cache=unsafe`],
        ...["-device", "virtio-blk-pci,drive=disk"],
        ...["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="],
        ...hardware,
      ],
      { stdio: ["ignore", "ignore", "inherit"] },
    );
    const started = { child, ended: null, hasEnded: false, why: null };
    started.ended = new Promise((resolve) => {
      child.once("error", (error) => {
        started.why = error.message;
        resolve();
      });
      child.once("close", (code, signal) => {
        started.hasEnded = true;
        if (restarts && code === 0 && qemu === started) {
          void exclusive(() => qemu === started && begin());
        } else started.why ??= `QEMU ended with ${signal ?? `exit code ${code}`}`;
        resolve();
      });
    });
    qemu = started;
  };

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
      boots.push(join(directory, `console-${boots.length + 1}`));
      begin();
    },

    /** Cuts the power: at once, in the middle of whatever it does. */
    async cut() {
      qemu?.child.kill("SIGKILL");
      await qemu?.ended;
      qemu = null;
    },

    /** Resets the machine, as its reset button and its watchdog do; the console goes on. */
    reset() {
      return exclusive(async () => {
        await machine.cut();
        begin();
      });
    },

    /** Does `work` while the machine stands still: its disks are what a power cut would leave. */
    standStill(work) {
      return exclusive(async () => {
        const stopped = qemu;
        const isOn = await order(stopped, monitor, "stop");
        try {
          return await work();
        } finally {
          if (isOn) await order(stopped, monitor, "cont");
        }
      });
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
        if (
          why !== null ||
          (!restarts && text.includes("Kernel panic")) ||
          performance.now() > end
        ) {
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

/** Gives QEMU's monitor an order, and waits until it was obeyed; false if QEMU has ended. */
async function order(started, monitor, command) {
  while (!started.hasEnded) {
    try {
      await tellMonitor(monitor, command);
      return true;
    } catch (error) {
      // It has no monitor yet, or none any more.
      if (!["ENOENT", "ECONNREFUSED", "ECONNRESET", "EPIPE"].includes(error.code)) throw error;
      await Promise.race([started.ended, delay(50)]);
    }
  }
  return false;
}

async function tellMonitor(monitor, command) {
  const connection = createConnection(monitor);
  connection.setEncoding("utf8");
  let said = "";
  let isTold = false;
  try {
    for await (const text of connection) {
      said += text;
      // It greets with a prompt, and shows another one when it is done.
      const prompts = said.split("(qemu) ").length - 1;
      if (prompts > 0 && !isTold) {
        isTold = true;
        connection.write(`${command}\n`);
      }
      if (prompts > 1) return;
    }
  } finally {
    connection.destroy();
  }
  const message = `expected QEMU to ${command}, but its monitor closed: ${said}`;
  throw Object.assign(new Error(message), { code: "ECONNRESET" });
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
