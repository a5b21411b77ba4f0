// `nixos-pull repair` and damaged store paths, with real Nix and real damage.
import {
  appendFile,
  chmod,
  lstat,
  open,
  readFile,
  readdir,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gunzipSync } from "node:zlib";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { buildSystem } from "../support/closure.ts";
import { nixosPull } from "../support/nixos-pull.ts";
import { runNix } from "../support/real-nix.ts";
import { createHost, createOperator, type Operator, type SandboxHost } from "../support/sandbox.ts";
import { mountReadOnly, unmount, whyNoMounts } from "../support/scratch-mount.ts";
import { temporaryDirectory } from "../support/temporary.ts";

let systems: [string, string];
beforeAll(async () => {
  systems = [await buildSystem({ generation: "1" }), await buildSystem({ generation: "2" })];
});

interface Repaired {
  readonly exitCode: number | null;
  readonly value: {
    readonly verified: number;
    readonly damaged: {
      path: string;
      kind: string;
      inUse: boolean;
      repaired: boolean;
      neededBy: string[];
      files: string[];
    }[];
    readonly error: { code: string; message: string } | null;
  };
}

/** A host that runs the first system. */
async function installed(): Promise<{ operator: Operator; host: SandboxHost }> {
  const operator = await createOperator();
  await operator.publish({ web1: systems[0] });
  const host = await createHost({
    mirrors: [pathToFileURL(operator.mirror).href],
    publicKeys: [operator.publicKey],
  });
  const applied = await host.run("apply");
  expect(applied.exitCode, applied.stderr).toBe(0);
  return { operator, host };
}

const repair = (host: SandboxHost, ...args: string[]): Promise<Repaired> =>
  host.json("repair", ...args);

function nixStore({ root }: SandboxHost, ...args: string[]): string {
  return runNix("nix-store", ["--store", `local?root=${root}`, ...args]);
}

/** The closure of the running system, sorted. */
function closureOf(host: SandboxHost): string[] {
  return nixStore(host, "--query", "--requisites", systems[0]).trim().split("\n").sort();
}

/** The path of the closure whose name ends so. */
function find(host: SandboxHost, name: string): string {
  const found = closureOf(host).find((path) => path.endsWith(name));
  if (found === undefined) throw new Error(`there is no ${name}`);
  return found;
}

/** Throws unless all contents of the running system are as they were built. */
function expectWhole(host: SandboxHost): void {
  nixStore(host, "--verify-path", ...closureOf(host));
}

async function expectClean(host: SandboxHost): Promise<void> {
  expect(await host.stagingIsClean()).toBe(true);
  expect(await readdir(join(host.root, "nix/store"))).not.toContain(".nixos-pull-repair");
}

/** Changes one byte and no time, as a bad disk does. */
async function flipByte(path: string): Promise<void> {
  await chmod(path, 0o644);
  const file = await open(path, "r+");
  try {
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, 0);
    await file.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, 0);
  } finally {
    await file.close();
  }
  await chmod(path, 0o444);
}

const LIBRARY = "-library-1.0";

test("a host whose store is whole has nothing to repair", async () => {
  const { host } = await installed();
  const all = closureOf(host).length;
  const found = { verified: all, damaged: [], error: null };
  expect(await repair(host)).toMatchObject({ exitCode: 0, value: found });
  expect(await repair(host, "--dry-run")).toMatchObject({ exitCode: 0, value: found });
  expect((await host.run("repair")).stdout).toBe(
    `${all} store paths verified: nothing is damaged.\n`,
  );
});

test("a byte of the running system is repaired from a stick by one rename", async () => {
  const { host } = await installed();
  const library = find(host, LIBRARY);
  const [file, beside] = ["liblibrary.so.1", "liblibrary.so"].map((name) =>
    join(host.root, library, "lib", name),
  ) as [string, string];
  await flipByte(file);
  const [damaged, link] = [await stat(file), await lstat(beside)];
  const reader = await open(file, "r");

  const item = { path: library, kind: "damaged", inUse: true };
  const looked = await repair(host, "--dry-run");
  expect(looked).toMatchObject({
    exitCode: 7,
    value: {
      damaged: [{ ...item, repaired: false }],
      error: { code: "STORE_DAMAGED", message: "1 store path is damaged or missing" },
    },
  });
  expect((await stat(file)).ino).toBe(damaged.ino);

  const repaired = await repair(host);
  expect(repaired).toMatchObject({
    exitCode: 0,
    value: { damaged: [{ ...item, repaired: true }], error: null },
  });
  expectWhole(host);
  await expectClean(host);
  // Another file has its name; whoever had it open has the old one. What was good is the same.
  expect(await readFile(file, "utf8")).toBe("library\n");
  const now = await stat(file);
  expect(now.ino).not.toBe(damaged.ino);
  expect({ mode: now.mode & 0o7777, mtime: now.mtimeMs }).toEqual({ mode: 0o444, mtime: 1_000 });
  expect((await stat(join(host.root, library, "lib"))).mtimeMs).toBe(1_000);
  expect((await lstat(beside)).ino).toBe(link.ino);
  expect(await reader.readFile("utf8")).toBe("mibrary\n");
  await reader.close();
  const { stdout } = await host.run("history");
  expect(stdout).toContain("brought back 1 of 1 damaged store path");
});

test("whatever is wrong in a tree is put right: files, links, kinds, rights, what is too much or gone", async () => {
  const { host } = await installed();
  const [library, odd] = [find(host, LIBRARY), find(host, "odd-names")];
  const at = (...names: string[]): string => join(host.root, library, ...names);
  await rm(at("lib/liblibrary.so"));
  await symlink("elsewhere", at("lib/liblibrary.so"));
  await rm(at("dangling"));
  await writeFile(at("dangling"), "a file");
  await rm(at("empty"), { recursive: true });
  await writeFile(at("empty"), "no directory");
  await writeFile(at("lib/foreign"), "foreign");
  await chmod(at("lib/liblibrary.so.1"), 0o755);
  await rename(join(host.root, odd), join(host.root, "away"));
  const outside = await temporaryDirectory();
  await symlink(outside, at("lib/out"));
  await appendFile(join(outside, "kept"), "kept");

  const { exitCode, value } = await repair(host);
  expect(value.error).toBeNull();
  expect(exitCode).toBe(0);
  expect(value.damaged.map(({ path }) => path).sort()).toEqual([library, odd].sort());
  expectWhole(host);
  await expectClean(host);
  expect(await readdir(at("lib"))).toEqual(["liblibrary.so", "liblibrary.so.1"]);
  expect(await readFile(join(outside, "kept"), "utf8")).toBe("kept");
});

test.each<[string, (closure: readonly string[]) => readonly string[]]>([
  ["it", () => [systems[0]]],
  ["it, nor what it refers to,", (closure) => closure],
])("a system comes back whole if Nix does not know %s any more", async (_, forgotten) => {
  const { host } = await installed();
  const before = closureOf(host);
  nixStore(host, "--delete", "--ignore-liveness", ...forgotten(before));
  const { exitCode, value } = await repair(host);
  expect(value).toMatchObject({
    damaged: [{ path: systems[0], kind: "missing", repaired: true }],
    error: null,
  });
  expect(exitCode).toBe(0);
  expect(closureOf(host)).toEqual(before);
  expectWhole(host);
});

test("what a system refers to that came back is verified as well", async () => {
  const { host } = await installed();
  const library = find(host, "-library-1.0");
  const [file] = (await readdir(join(host.root, library), { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  nixStore(host, "--delete", "--ignore-liveness", systems[0]);
  await flipByte(file ?? "");
  const { exitCode, value } = await repair(host);
  expect(value.damaged.map(({ path, kind, repaired }) => [path, kind, repaired])).toEqual([
    [systems[0], "missing", true],
    [library, "damaged", true],
  ]);
  expect(exitCode).toBe(0);
  expectWhole(host);
});

test("a file that Nix made one with its like does not come back damaged at the next optimisation", async () => {
  const { host } = await installed();
  const file = join(host.root, find(host, LIBRARY), "lib/liblibrary.so.1");
  nixStore(host, "--optimise");
  expect((await stat(file)).nlink).toBeGreaterThan(1);
  await flipByte(file);
  expect(await repair(host)).toMatchObject({ exitCode: 0 });
  nixStore(host, "--optimise");
  expectWhole(host);
});

test("the host's own release is repaired from, although the mirror has a newer one", async () => {
  const { operator, host } = await installed();
  await operator.publish({ web1: systems[1] });
  // Only the old system has it.
  await flipByte(join(host.root, systems[0], "bin/switch-to-configuration"));
  await chmod(join(host.root, systems[0], "bin/switch-to-configuration"), 0o555);
  const repaired = await repair(host);
  expect(repaired.value).toMatchObject({ damaged: [{ path: systems[0], repaired: true }] });
  expect(repaired.exitCode).toBe(0);
  expectWhole(host);
});

test("a garbage collection in the middle of a repair waits for it", async () => {
  const { host } = await installed();
  const library = find(host, LIBRARY);
  await flipByte(join(host.root, library, "lib/liblibrary.so.1"));
  const directory = await temporaryDirectory();
  const log = join(directory, "collection.log");
  // Before the damaged path is unpacked, somebody collects garbage: it waits, or it is over.
  const real = execFileSync("sh", ["-c", "command -v nix"], { encoding: "utf8" }).trim();
  await writeFile(
    join(directory, "nix"),
    `#!/bin/sh
case "$*" in *dump-path*)
  NIX_REMOTE="local?root=${host.root}" nix-collect-garbage > ${log} 2>&1 &
  while kill -0 $! 2>/dev/null && ! grep -q "waiting for the big garbage collector lock" ${log}; do
    sleep 0.02
  done;;
esac
exec ${real} "$@"
`,
    { mode: 0o755 },
  );
  const { exitCode, stdout, stderr } = await nixosPull(
    ["repair", "--config", host.configFile, "--json"],
    { PATH: `${directory}:${process.env["PATH"] ?? ""}` },
  );
  expect(exitCode, stderr).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ damaged: [{ path: library, repaired: true }] });
  expect(await readFile(log, "utf8")).toContain("waiting for the big garbage collector lock");
  await vi.waitFor(async () => {
    expect(await readFile(log, "utf8")).toMatch(/store paths? deleted/);
  }, 60_000);
  expectWhole(host);
  await expectClean(host);
});

test("one NAR that the mirror has altered does not keep the other paths from being repaired", async () => {
  const { operator, host } = await installed();
  const [library, odd] = [find(host, LIBRARY), find(host, "odd-names")];
  await flipByte(join(host.root, library, "lib/liblibrary.so.1"));
  await rename(join(host.root, odd), join(host.root, "away"));
  await alterNar(operator, odd);
  const { exitCode, value } = await repair(host);
  expect(exitCode).toBe(7);
  const rows = value.damaged.map(({ path, repaired, neededBy, files }) => ({
    ...{ path, repaired, neededBy, files },
  }));
  const needs = ["running", "boot default", "release"];
  expect(rows.sort((a, b) => Number(b.repaired) - Number(a.repaired))).toEqual([
    { path: library, repaired: true, neededBy: needs, files: ["lib/liblibrary.so.1"] },
    { path: odd, repaired: false, neededBy: needs, files: [] },
  ]);
  expect(value.error?.message).toContain(
    `1 store path is still damaged or missing: ${odd}: ARCHIVE_`,
  );
  expect(value.error?.message).not.toContain(library);
  nixStore(host, "--verify-path", library);
  await expectClean(host);

  // It is not forgotten, and people read which file was bad.
  const status = await host.json("status");
  expect(status.value.alarms).toMatchObject([{ code: "STORE_DAMAGED" }]);
  const checked = await host.json("check");
  expect(checked.value.alarms).toMatchObject([{ code: "STORE_DAMAGED" }]);
  await flipByte(join(host.root, library, "lib/liblibrary.so.1"));
  await rename(join(host.root, "away"), join(host.root, odd));
  expect((await host.run("repair")).stdout).toContain(
    `${library}: damaged, needed by: running, boot default, release; repaired (lib/liblibrary.so.1)`,
  );
  expect((await host.json("status")).value.alarms).toEqual([]);
});

/** Changes a byte of one path's NAR in the operator's mirror, and nothing else. */
async function alterNar({ mirror }: Operator, path: string): Promise<void> {
  for (const name of await readdir(join(mirror, "archives"))) {
    const file = join(mirror, "archives", name);
    const bytes = await readFile(file);
    const size = Number.parseInt(bytes.toString("latin1", 124, 135), 8);
    const index = JSON.parse(gunzipSync(bytes.subarray(512, 512 + size)).toString()) as {
      paths: { path: string; nar: { offset: number } }[];
    };
    const entry = index.paths.find((it) => `/nix/store/${it.path}` === path);
    if (!entry) continue;
    const at = 512 + Math.ceil(size / 512) * 512 + entry.nar.offset + 4;
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    await writeFile(file, bytes);
  }
}

describe("if the mirror", () => {
  async function unrepaired(
    host: SandboxHost,
    message: RegExp,
    expected: Record<string, unknown> = {},
  ): Promise<void> {
    const file = join(host.root, find(host, LIBRARY), "lib/liblibrary.so.1");
    await flipByte(file);
    const { ino } = await stat(file);
    const { exitCode, value } = await repair(host);
    expect(exitCode).toBe(7);
    expect(value).toMatchObject({
      damaged: [{ repaired: false }],
      error: { code: "STORE_DAMAGED" },
    });
    expect(value.error?.message).toMatch(message);
    expect(value).toMatchObject(expected);
    expect((await stat(file)).ino).toBe(ino);
    await expectClean(host);
  }

  test("is not there, nothing is changed, and the next try repairs", async () => {
    const { operator, host } = await installed();
    await rename(operator.mirror, `${operator.mirror}.away`);
    await unrepaired(
      host,
      /MIRROR_ABSENT: .*; run `nixos-pull repair` again once the mirror or the stick is there$/,
    );
    await rename(`${operator.mirror}.away`, operator.mirror);
    expect(await repair(host)).toMatchObject({ exitCode: 0 });
    expectWhole(host);
  });

  test("has an altered NAR, nothing is changed", async () => {
    const { operator, host } = await installed();
    for (const name of await readdir(join(operator.mirror, "archives"))) {
      const path = join(operator.mirror, "archives", name);
      const bytes = await readFile(path);
      // Behind the index, everywhere: the header of the first member says how long that is (tar(5)).
      const index = Number.parseInt(bytes.toString("latin1", 124, 135), 8);
      for (let at = 1_024 + index; at < bytes.length; at += 64) bytes[at] = (bytes[at] ?? 0) ^ 1;
      await writeFile(path, bytes);
    }
    await unrepaired(host, /ARCHIVE_/);
  });
});

const noMounts = whyNoMounts();
test.skipIf(noMounts !== null)(
  "a store that is mounted read-only, as NixOS has it, is repaired",
  async () => {
    const { host } = await installed();
    const store = join(host.root, "nix/store");
    await flipByte(join(host.root, find(host, LIBRARY), "lib/liblibrary.so.1"));
    mountReadOnly(store);
    const { exitCode, value } = await repair(host);
    expect(value.error).toBeNull();
    expect(exitCode).toBe(0);
    expectWhole(host);
    await expect(writeFile(join(store, "still-read-only"), "")).rejects.toMatchObject({
      code: "EROFS",
    });
    unmount(store);
    await expectClean(host);
  },
);

test("a release brings back what is gone of the paths that the host has already", async () => {
  const { operator, host } = await installed();
  const library = find(host, LIBRARY);
  await rename(join(host.root, library), join(host.root, "away"));
  await operator.publish({ web1: systems[1] });
  const applied = await host.run("apply");
  expect(applied.exitCode, applied.stderr).toBe(0);
  expect(applied.stderr).toContain("1 paths of the store are damaged");
  expectWhole(host);
  expect(await host.profileToplevel()).toBe(systems[1]);
});
