import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, readSync, readdirSync, statSync } from "node:fs";
import { readlink } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  isNarMember,
  readIndex,
  type ArchiveContents,
} from "../../agent/core/formats/archive-index.ts";
import { parsePublicKey } from "../../agent/core/formats/signing-key.ts";
import { STORE_DIRECTORY } from "../../agent/core/formats/store-path.ts";
import { TAR_BLOCK, paddedSize } from "../../agent/core/formats/tar-layout.ts";
import { installMissing } from "../../scripts/bench/support/debian-packages.mjs";
import { buildDebianSystem } from "../../scripts/bench/support/debian-systems.mjs";
import { importByHand } from "../../scripts/bench/support/hand-workflow.mjs";
import { startNginx, wireBytes, type NginxServer } from "../../scripts/bench/support/nginx.mjs";
import type { MeasuredRun } from "../../scripts/bench/support/process-usage.mjs";
import {
  createHost,
  createOperator,
  type Host,
  type Operator,
  type PublishedHost,
} from "../../scripts/bench/support/sandbox.mjs";
import { suiteDirectory } from "../support/suite-directory.ts";

/**
 * The agent's own peak memory, whatever the closure's size. Node takes 70 MB of it before
 * the first byte; a closure kept in memory would be ten times as much as this.
 */
const PEAK_RSS_BYTES = 160e6;

const BUNDLE = fileURLToPath(new URL("../../dist/nixos-pull.cjs", import.meta.url));

// All sandboxes stay until the end: for minutes after a big tree is deleted, ext4 makes
// new files so slowly that it dominates (see scripts/bench/support/scratch-disk.mjs).
const directory = suiteDirectory();
const mirror = join(directory, "mirror");
const cache = join(directory, "cache");

let operator: Operator;
let server: NginxServer;
/** The release in force. */
let release: PublishedHost;

beforeAll(async () => {
  installMissing();
  operator = await createOperator({ directory, bundle: BUNDLE });
  mkdirSync(mirror);
  server = await startNginx(mirror, join(directory, "nginx"));
  await publish(1);
});

afterAll(() => {
  server.stop();
});

test("publishes at least 400 paths, one of them of 100 MB and more", async () => {
  const { index } = readContents();
  expect(release.paths).toBeGreaterThanOrEqual(400);
  expect(index.paths).toHaveLength(release.paths);
  expect(Math.max(...index.paths.map(({ narSize }) => narSize))).toBeGreaterThan(100e6);
});

test("an empty host installs over HTTP; its next release downloads only the new paths", async () => {
  const host = newHost("http", server.url);
  const before = server.requests().length;
  const installed = await host.apply();
  const wire = wireBytes(server.requests().slice(before));
  figures("first install over HTTP", installed, wire);
  expect(installed).toMatchObject({ newPaths: release.paths, toplevel: release.toplevel });
  expect(await profileOf(host)).toBe(release.toplevel);
  // Every byte once: the manifest and HTTP's own headers are the rest.
  expect(wire).toBeLessThan(release.archive.size + 50_000);
  expect(installed.peakRssBytes).toBeLessThan(PEAK_RSS_BYTES);
  verifyStore(host);

  const held = new Set(readContents().index.paths.map(({ path }) => path));
  await publish(2);
  const fresh = readContents().index.paths.filter(({ path }) => !held.has(path));
  const requestsBefore = server.requests().length;
  const updated = await host.apply();
  const requests = server.requests().slice(requestsBefore);
  figures("update to generation 2", updated, wireBytes(requests));
  expect(fresh.length).toBeGreaterThan(0);
  expect(updated).toMatchObject({ newPaths: fresh.length, toplevel: release.toplevel });
  expect(await profileOf(host)).toBe(release.toplevel);
  // The manifest, what is missing, and the manifest again: before it is activated, and from
  // the new system.
  const parts = requests.slice(1, -2).map(() => 206);
  expect(requests.map(({ status }) => status)).toEqual([200, ...parts, 304, 304]);
  const needed = fresh.reduce((sum, { nar }) => sum + nar.size, release.archive.index.size);
  // Headers, padding, the manifest, and gaps too small to be worth a request.
  expect(wireBytes(requests)).toBeLessThan(needed + 50_000);
  verifyStore(host);
});

test("a download that was killed goes on where it stopped", async () => {
  const host = newHost("killed", server.url);
  const nars = join(host.root, "state/staging", release.archive.sha256, "nar");
  const killed = await host.tryToApply({
    onSample: (pid) => {
      if (bytesIn(nars) > 40e6) process.kill(pid, "SIGKILL");
    },
  });
  expect(killed.exitCode).toBeNull();
  const staged = bytesIn(nars);
  expect(staged).toBeLessThan(release.archive.size * 0.95);

  const before = server.requests().length;
  const resumed = await host.apply();
  const requests = server.requests().slice(before);
  figures(`resumed after ${megabytes(staged)}`, resumed, wireBytes(requests));
  expect(wireBytes(requests)).toBeLessThan(release.archive.size - staged + 50_000);
  expect(await profileOf(host)).toBe(release.toplevel);
  expect(resumed.peakRssBytes).toBeLessThan(PEAK_RSS_BYTES);
  verifyStore(host);
});

test("a directory is as good a mirror", async () => {
  const host = newHost("directory", `file://${mirror}`);
  const installed = await host.apply();
  figures("first install from a directory", installed, 0);
  expect(installed).toMatchObject({ newPaths: release.paths, toplevel: release.toplevel });
  expect(await profileOf(host)).toBe(release.toplevel);
  expect(installed.peakRssBytes).toBeLessThan(PEAK_RSS_BYTES);
});

test("what a cut archive holds can be imported by hand: a prefix is closed under references", async () => {
  const { index, members } = readContents();
  const nars = members.filter(isNarMember);
  const end = (nar: (typeof nars)[number]): number =>
    nar.headerOffset + TAR_BLOCK + paddedSize(nar.size);
  const last = nars.filter((nar) => end(nar) < 60e6).at(-1);
  if (!last) throw new Error("expected a NAR in the first 60 MB");
  const position = index.paths.findIndex(({ path }) => path === last.body.storePath);
  const paths = index.paths.slice(0, position + 1).map(({ path }) => `${STORE_DIRECTORY}/${path}`);
  expect(paths.length).toBeGreaterThan(20);

  const root = join(directory, "prefix");
  const unpacked = join(root, "unpacked");
  mkdirSync(unpacked, { recursive: true });
  const archive = archiveFile();
  execFileSync("bash", [
    ...["-c", 'set -o pipefail; head -c "$1" "$2" | tar -x -C "$3"', "bash"],
    ...[String(end(last)), archive, unpacked],
  ]);
  const imported = await importByHand(root, `file://${unpacked}`, paths, operator.publicKey);
  figures(`the first ${paths.length} paths by hand`, imported, 0);
});

/** Publishes a generation, which comes into force; every archive has the whole closure. */
async function publish(generation: number): Promise<void> {
  const toplevel = await buildDebianSystem({ generation });
  const run = await operator.publish(mirror, { web1: toplevel }, "--cache", cache, "--whole");
  const host = run.release.hosts["web1"];
  if (!host) throw new Error("expected web1 in the release");
  release = host;
  figures(`publish of generation ${generation}`, run, 0);
}

function newHost(name: string, address: string): Host {
  const { publicKey } = operator;
  return createHost(join(directory, name), BUNDLE, { mirror: address, publicKey });
}

function archiveFile(): string {
  return join(mirror, "archives", `${release.archive.sha256}.tar`);
}

/** The index of the release in force, checked as a host checks it. */
function readContents(): ArchiveContents {
  const compressed = Buffer.alloc(release.archive.index.size);
  const file = openSync(archiveFile(), "r");
  readSync(file, compressed, 0, compressed.length, TAR_BLOCK);
  closeSync(file);
  return readIndex(compressed, release, [parsePublicKey(operator.publicKey)]);
}

/** Has Nix hash every file of every path again. */
function verifyStore({ root, env }: Host): void {
  const store = ["--store", `local?root=${root}`];
  execFileSync("nix-store", ["--verify", "--check-contents", ...store], { env, stdio: "pipe" });
  const valid = execFileSync("nix-store", ["--query", "--requisites", release.toplevel, ...store], {
    env,
    encoding: "utf8",
  });
  expect(valid.trim().split("\n")).toHaveLength(release.paths);
}

async function profileOf({ root }: Host): Promise<string> {
  const profiles = join(root, "nix/var/nix/profiles");
  return readlink(join(profiles, await readlink(join(profiles, "system"))));
}

function bytesIn(nars: string): number {
  try {
    return readdirSync(nars).reduce((sum, name) => sum + statSync(join(nars, name)).size, 0);
  } catch {
    // Not there yet, or a part was renamed in this moment.
    return 0;
  }
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 0)} MB`;
}

/** Prints what a run took. */
function figures(what: string, { seconds, peakRssBytes }: MeasuredRun, wire: number): void {
  const read = wire === 0 ? "" : `, ${megabytes(wire)} on the wire`;
  console.log(`${what}: ${seconds.toFixed(1)} s, peak RSS ${megabytes(peakRssBytes)}${read}`);
}
