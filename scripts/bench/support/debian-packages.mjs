// What the benchmarks and the slow tests need beside Node, installed where it is missing.
import { spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/** The Debian package of each program. */
const PACKAGES = {
  curl: "curl",
  flock: "util-linux",
  "mkfs.ext4": "e2fsprogs",
  nginx: "nginx-light",
  nix: "nix-bin",
  openssl: "openssl",
  patchelf: "patchelf",
  zstd: "zstd",
};

/** Servers and file system tools lie here, also for users whose PATH leaves it out. */
const SYSTEM_DIRECTORIES = ["/usr/sbin", "/sbin"];

/** Makes all of PACKAGES available; throws with what to install where this is not root. */
export function installMissing() {
  const path = [...(process.env["PATH"] ?? "").split(delimiter), ...SYSTEM_DIRECTORIES];
  process.env["PATH"] = [...new Set(path)].join(delimiter);
  const missing = Object.entries(PACKAGES)
    .filter(([command]) => !path.some((directory) => isExecutable(join(directory, command))))
    .map(([, name]) => name);
  if (missing.length === 0) return;
  if (process.getuid?.() !== 0) {
    throw new Error(`please install these Debian packages first: ${missing.join(", ")}`);
  }
  // In run level 1 Debian starts no server that it installs (invoke-rc.d(8)).
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" };
  const install = ["install", "--yes", "--no-install-recommends", ...missing];
  for (const args of [["update"], install]) {
    const { status, stderr } = spawnSync("apt-get", args, { env, encoding: "utf8" });
    if (status !== 0) throw new Error(`apt-get ${args.join(" ")}:\n${stderr}`);
  }
}

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
