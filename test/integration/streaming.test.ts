import { chmodSync, lstatSync, readdirSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { setInterval } from "node:timers";
import { expect, test } from "vitest";
import { runProcess } from "../../agent/effects/process/subprocess.ts";
import { buildSystem } from "../support/closure.ts";
import { parseRange } from "../support/misbehaviours.ts";
import { serveMirror } from "../support/mirror-server.ts";
import { testEnvironment } from "../support/nixos-pull.ts";
import { createHost, createOperator, type SandboxHost } from "../support/sandbox.ts";

const MEBI = 1024 ** 2;
const PART = 1.5 * MEBI;
/** Six paths in a row of a size that does not compress: 9 MiB, and 4 MiB of staging at least. */
const SYSTEM = { parts: 6, partBytes: PART };

async function published(limits: Record<string, unknown> = {}) {
  const operator = await createOperator();
  const server = await serveMirror(operator.mirror);
  const settings = { mirrors: [server.url], publicKeys: [operator.publicKey], limits };
  const host = await createHost(settings);
  const toplevel = await buildSystem(SYSTEM);
  await operator.publish({ web1: toplevel });
  return { operator, server, host, toplevel };
}

/** Watches how much lies in staging while `work` goes on; gives the most. */
async function peakStaging(host: SandboxHost, work: Promise<unknown>): Promise<number> {
  let most = 0;
  const timer = setInterval(() => {
    most = Math.max(most, bytesBelow(host.staging));
  }, 3);
  try {
    await work;
  } finally {
    clearInterval(timer);
  }
  return most;
}

function bytesBelow(directory: string): number {
  let bytes = 0;
  try {
    for (const name of readdirSync(directory, { recursive: true }) as string[]) {
      const found = lstatSync(join(directory, name));
      if (found.isFile()) bytes += found.size;
    }
  } catch {
    // Something was removed in this moment; the next look sees the rest.
  }
  return bytes;
}

async function nixStore(host: SandboxHost, ...args: string[]): Promise<string> {
  const result = await runProcess("nix-store", [...args, "--store", `local?root=${host.root}`], {
    env: testEnvironment(),
    timeoutMs: 300_000,
    maxOutput: MEBI,
  });
  if (result.exitCode !== 0) throw new Error(result.stderr);
  return result.stdout;
}

test.each([true, false])(
  "staging stays within its bound while a closure comes in (ranges: %s)",
  async (ranges) => {
    const { server, host, toplevel } = await published({ maxRate: 20 * MEBI });
    server.ranges = ranges;
    const applying = host.run("apply");
    const most = await peakStaging(host, applying);
    const { exitCode, stderr } = await applying;
    expect(exitCode, stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(toplevel);
    expect(most).toBeGreaterThan(PART);
    // The index and narinfos lie there too.
    expect(most).toBeLessThan(4.1 * MEBI);
    expect(await host.stagingIsClean()).toBe(true);
    expect(readdirSync(join(host.root, "nix/var/nix/gcroots/nixos-pull"))).toEqual(["current"]);
  },
);

test("what was imported before a kill -9 outlives a garbage collection and is not downloaded again", async () => {
  const { server, host, toplevel } = await published({ maxRate: 3 * MEBI });
  const first = host.start("apply");
  const roots = join(host.root, "nix/var/nix/gcroots/nixos-pull/pending-paths");
  const valid = async (): Promise<string[]> =>
    (await nixStore(host, "--query", "--requisites", ...heldIn(roots)).catch(() => ""))
      .split("\n")
      .filter((path) => path !== "");
  await expect.poll(valid, { timeout: 120_000, interval: 50 }).not.toEqual([]);
  first.child.kill("SIGKILL");
  await first.ended;
  const imported = await valid();
  await nixStore(host, "--gc");
  expect(await valid()).toEqual(imported);

  const before = server.requests.length;
  const { exitCode, stderr } = await host.run("apply");
  expect(exitCode, stderr).toBe(0);
  expect(await host.profileToplevel()).toBe(toplevel);
  const again = server.requests
    .slice(before)
    .map(({ range }) => parseRange(range))
    .reduce((sum, range) => sum + (range ? range.to - range.from : 0), 0);
  expect(again).toBeLessThan(6.2 * PART - imported.filter(isPart).length * PART);
});

test("what a power cut left damaged in the store is imported again, with what refers to it", async () => {
  const { host, toplevel } = await published({ maxRate: 3 * MEBI });
  const first = host.start("apply");
  const roots = join(host.root, "nix/var/nix/gcroots/nixos-pull/pending-paths");
  const parts = async (): Promise<string[]> =>
    (await nixStore(host, "--query", "--requisites", ...heldIn(roots)).catch(() => ""))
      .split("\n")
      .filter(isPart);
  await expect.poll(parts, { timeout: 120_000, interval: 50 }).not.toEqual([]);
  first.child.kill("SIGKILL");
  await first.ended;
  // Files whose contents never reached the disk are empty when the power is back.
  const [part = ""] = await parts();
  const lost = join(host.root, part, "contents");
  chmodSync(lost, 0o644);
  truncateSync(lost, 0);

  const { exitCode, stderr } = await host.run("apply");
  expect(exitCode, stderr).toBe(0);
  expect(stderr).toContain("were damaged while they were imported");
  expect(await host.profileToplevel()).toBe(toplevel);
  const closure = (await nixStore(host, "--query", "--requisites", toplevel)).trim().split("\n");
  await nixStore(host, "--verify-path", ...closure);
  expect(readdirSync(join(host.root, "nix/var/nix/gcroots/nixos-pull"))).toEqual(["current"]);
});

test("a mirror that fails in the middle is followed by the next one, from where it stopped", async () => {
  const { operator, server, toplevel } = await published();
  const next = await serveMirror(operator.mirror);
  const both = await createHost({
    mirrors: [server.url, next.url],
    publicKeys: [operator.publicKey],
  });
  let asked = 0;
  // The index and the first NARs are served, then something is wrong with its disk.
  server.misbehave = (request, response) => {
    if (request.url?.startsWith("/archives/") !== true || ++asked <= 4) return false;
    response.writeHead(500).end();
    return true;
  };
  const { exitCode, stderr } = await both.run("apply");
  expect(exitCode, stderr).toBe(0);
  expect(stderr).toContain("the next mirror is tried");
  expect(await both.profileToplevel()).toBe(toplevel);
  const sent = next.requests.map(({ range }) => parseRange(range));
  const bytes = sent.reduce((sum, range) => sum + (range ? range.to - range.from : 0), 0);
  expect(bytes).toBeLessThan(5 * PART);
});

function heldIn(directory: string): string[] {
  try {
    return readdirSync(directory).map((name) => `/nix/store/${name}`);
  } catch {
    return [];
  }
}

/** One of those that hold bytes in a file. */
function isPart(path: string): boolean {
  return /-part-\d+$/.test(path);
}
