import {
  copyFile,
  mkdir,
  readFile,
  readdir,
  rm,
  stat,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { TAR_BLOCK } from "../../agent/core/formats/tar-layout.ts";
import { buildSystem } from "../support/closure.ts";
import { serveMirror } from "../support/mirror-server.ts";
import { nixosPull, startCommand, type CommandOutput } from "../support/nixos-pull.ts";
import { createHost, createOperator, type Operator } from "../support/sandbox.ts";

const PART = 300_000;
/** What two hosts share, and what a second generation leaves as it is. */
const ROW = { parts: 3, partBytes: PART };

const systemOf = (name: string, generation = "1"): Promise<string> =>
  buildSystem({ ...ROW, name, generation });

/** Archives of paths by file name; not those of index patches, which are no more than an aid. */
async function archivesOf({ mirror }: Operator): Promise<Map<string, number>> {
  const names: string[] = [];
  for (const name of await readdir(join(mirror, "archives"))) {
    const begin = (await readFile(join(mirror, "archives", name))).subarray(0, 13).toString();
    if (begin !== "index-patches") names.push(name);
  }
  const sizes = names.map(
    async (name) => [name, (await stat(join(mirror, "archives", name))).size] as const,
  );
  return new Map(await Promise.all(sizes));
}

const sum = (sizes: Iterable<number>): number => [...sizes].reduce((a, b) => a + b, 0);

async function verifies({ mirror, publicKey }: Operator): Promise<CommandOutput> {
  return nixosPull(["verify", mirror, "--public-key", publicKey, "--json"]);
}

const prune = ({ mirror }: Operator, ...args: string[]): Promise<CommandOutput> =>
  nixosPull(["prune", mirror, "--json", ...args]);

describe("what several hosts have is stored once", () => {
  test("in an archive that they share, and each of them installs from both", async () => {
    const operator = await createOperator();
    const [web1, db1] = [await systemOf("web1"), await systemOf("db1")];
    await operator.publish({ web1, db1 });
    const archives = await archivesOf(operator);
    expect(archives.size).toBe(3);
    expect(sum(archives.values())).toBeLessThan(3 * PART + 60_000);
    expect((await verifies(operator)).exitCode).toBe(0);

    const server = await serveMirror(operator.mirror);
    for (const ranges of [true, false]) {
      server.ranges = ranges;
      for (const [hostname, toplevel] of Object.entries({ web1, db1 })) {
        const settings = { mirrors: [server.url], publicKeys: [operator.publicKey] };
        const host = await createHost(settings, hostname);
        const { exitCode, stderr } = await host.run("apply");
        expect(exitCode, stderr).toBe(0);
        expect(await host.profileToplevel()).toBe(toplevel);
        expect(await host.stagingIsClean()).toBe(true);
      }
    }
  });

  test("not with --whole: each archive has everything", async () => {
    const operator = await createOperator();
    await operator.publish({ web1: await systemOf("web1"), db1: await systemOf("db1") }, "--whole");
    const archives = await archivesOf(operator);
    expect(archives.size).toBe(2);
    for (const size of archives.values()) expect(size).toBeGreaterThan(3 * PART);
    expect((await verifies(operator)).exitCode).toBe(0);
  });
});

describe("what an earlier release has is not stored again", () => {
  test("nor compressed, and hosts that skipped that release install all the same", async () => {
    const operator = await createOperator();
    await operator.publish({ web1: await systemOf("web1", "1") });
    const first = await archivesOf(operator);
    const second = await systemOf("web1", "2");
    await operator.publish({ web1: second });
    const both = await archivesOf(operator);
    expect(both.size).toBe(2);
    expect(sum(both.values()) - sum(first.values())).toBeLessThan(30_000);
    expect((await verifies(operator)).exitCode).toBe(0);

    const settings = { publicKeys: [operator.publicKey] };
    const host = await createHost({ ...settings, mirrors: [`file://${operator.mirror}`] });
    const { exitCode, stderr } = await host.run("apply");
    expect(exitCode, stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(second);
  });

  test("unless it is damaged there: then it is packed anew", async () => {
    const operator = await createOperator();
    await operator.publish({ web1: await systemOf("web1", "1") });
    const [name = ""] = (await archivesOf(operator)).keys();
    const file = join(operator.mirror, "archives", name);
    const bytes = await readFile(file);
    bytes[bytes.length - PART] = (bytes[bytes.length - PART] ?? 0) ^ 1;
    await writeFile(file, bytes);
    await operator.publish({ web1: await systemOf("web1", "2") });
    expect((await verifies(operator)).exitCode).toBe(0);
  });

  test("and --whole takes it from there for an archive of its own", async () => {
    const operator = await createOperator();
    await operator.publish({ web1: await systemOf("web1", "1") });
    await operator.publish({ web1: await systemOf("web1", "2") }, "--whole");
    for (const size of (await archivesOf(operator)).values()) {
      expect(size).toBeGreaterThan(3 * PART);
    }
    expect((await verifies(operator)).exitCode).toBe(0);
  });
});

describe("verify looks into the archives that hosts share", () => {
  test.each<[string, string, (file: string) => Promise<unknown>]>([
    ["is gone", "MIRROR_NOT_FOUND", (file) => rm(file)],
    ["was cut", "ARCHIVE_TRUNCATED", async (file) => truncate(file, (await stat(file)).size - 1)],
    [
      "has a wrong byte where no NAR is",
      "ARCHIVE_CORRUPT",
      async (file) => {
        const bytes = await readFile(file);
        bytes[TAR_BLOCK + 3] = (bytes[TAR_BLOCK + 3] ?? 0) ^ 1;
        await writeFile(file, bytes);
      },
    ],
    [
      "has a wrong byte in a NAR",
      "ARCHIVE_CORRUPT",
      async (file) => {
        const bytes = await readFile(file);
        bytes[bytes.length - PART] = (bytes[bytes.length - PART] ?? 0) ^ 1;
        await writeFile(file, bytes);
      },
    ],
  ])("one that %s: %s", async (_, code, damage) => {
    const operator = await createOperator();
    await operator.publish({ web1: await systemOf("web1"), db1: await systemOf("db1") });
    const archives = [...(await archivesOf(operator))].sort((a, b) => b[1] - a[1]);
    await damage(join(operator.mirror, "archives", archives[0]?.[0] ?? ""));
    const { exitCode, stdout } = await verifies(operator);
    expect(exitCode).not.toBe(0);
    const { channels } = JSON.parse(stdout) as { channels: { hosts: { code?: string }[] }[] };
    expect(channels[0]?.hosts.map((host) => host.code)).toEqual([code, code]);
  });
});

describe("prune", () => {
  /** Three releases of one host that differ in small paths, and a fourth without the row. */
  async function releases() {
    const operator = await createOperator();
    for (const generation of ["1", "2", "3"]) {
      await operator.publish({ web1: await systemOf("web1", generation) });
    }
    await operator.publish({ web1: await buildSystem({ generation: "4" }) });
    return operator;
  }

  test("removes what no retained release needs, and nothing that one of them names", async () => {
    const operator = await releases();
    const before = await archivesOf(operator);
    expect(before.size).toBe(4);
    await writeFile(join(operator.mirror, "archives/README"), "not an archive");

    // Release 3 has most of its paths in release 1's archive, which therefore stays.
    const planned = JSON.parse((await prune(operator, "--keep", "2", "--dry-run")).stdout) as {
      archives: { sha256: string }[];
    };
    expect((await archivesOf(operator)).size).toBe(5);
    const first = await prune(operator, "--keep", "2");
    expect(first.exitCode, first.stderr).toBe(0);
    const pruned = JSON.parse(first.stdout) as {
      archives: { sha256: string }[];
      releases: unknown[];
    };
    const ofPaths = ({ archives }: { archives: { sha256: string }[] }): unknown[] =>
      archives.filter(({ sha256 }) => before.has(`${sha256}.tar`));
    expect(pruned.archives).toEqual(planned.archives);
    expect(pruned.releases).toHaveLength(2);
    expect(ofPaths(pruned)).toHaveLength(1);
    // With the index patch of release 2.
    expect(pruned.archives.length).toBeGreaterThan(1);
    expect((await verifies(operator)).exitCode).toBe(0);

    const last = JSON.parse((await prune(operator, "--keep", "1")).stdout) as {
      archives: { sha256: string }[];
    };
    // What all four have in common still lies in the first one's archive.
    expect(ofPaths(last)).toHaveLength(1);
    expect((await verifies(operator)).exitCode).toBe(0);
    expect([...(await archivesOf(operator)).keys()]).toContain("README");
    expect(JSON.parse((await prune(operator, "--keep", "1")).stdout)).toMatchObject({
      archives: [],
      keptArchives: 3,
    });
  });

  test("counts releases with different systems, so that an abort has one to go back to", async () => {
    const operator = await createOperator();
    const good = await buildSystem({ generation: "1" });
    await operator.publish({ web1: good });
    await operator.publish({ web1: await buildSystem({ generation: "2" }) });
    const change = ["--mirror", operator.mirror, "--key", operator.keyFile];
    for (const reason of ["one", "two", "three"]) {
      expect((await nixosPull(["publish", "--refresh", ...change])).exitCode).toBe(0);
      const paused = await nixosPull(["release", "pause", reason, ...change]);
      expect(paused.exitCode, paused.stderr).toBe(0);
    }
    const { stdout } = await prune(operator, "--keep", "2");
    expect((JSON.parse(stdout) as { releases: { sequence: number }[] }).releases).toEqual(
      [7, 6, 5, 4, 3, 2].map((sequence) => ({ channel: "stable", sequence, draft: false })),
    );
    const aborted = await nixosPull(["release", "abort", ...change, "--json"]);
    expect(aborted.exitCode, aborted.stderr).toBe(0);
    expect(aborted.stderr).toContain("going back to the systems of release 1");
    expect((await verifies(operator)).exitCode).toBe(0);
  });

  test.each([["--dry-run"], []])("refuses a place without any release: %s", async (...args) => {
    const { directory } = await createOperator();
    const place = join(directory, "elsewhere");
    const found = await nixosPull(["prune", place, ...args]);
    expect(found.exitCode).toBe(2);
    expect(found.stderr).toContain("expected a mirror's directory, found no release in");
    await expect(readdir(place)).rejects.toThrow("ENOENT");
    // A mirror whose releases are lost still has every archive afterwards.
    await mkdir(join(place, "archives"), { recursive: true });
    const archive = join(place, "archives", `${"a".repeat(64)}.tar`);
    await writeFile(archive, "archive");
    expect((await nixosPull(["prune", place, ...args])).exitCode).toBe(2);
    expect(await readFile(archive, "utf8")).toBe("archive");
  });

  test("keeps what other channels and drafts name", async () => {
    const operator = await createOperator();
    const draft = join(operator.directory, "draft.json");
    await operator.publish({ web1: await buildSystem({ generation: "1" }) }, "--channel", "canary");
    await operator.publish({ web1: await buildSystem({ generation: "2" }) });
    await operator.publish({ web1: await buildSystem({ generation: "3" }) }, "--draft", draft);
    const before = await archivesOf(operator);
    expect((await prune(operator, "--keep", "1")).exitCode).toBe(0);
    expect(await archivesOf(operator)).toEqual(before);
    const publish = ["publish", "--mirror", operator.mirror, "--public-key", operator.publicKey];
    expect((await nixosPull([...publish, "--from-draft", draft])).exitCode).toBe(0);
    expect((await verifies(operator)).exitCode).toBe(0);

    // A release that came from a draft and the draft have the same number.
    await operator.publish({ web1: await buildSystem({ generation: "4" }) });
    const planned = await prune(operator, "--keep", "1", "--dry-run");
    expect((JSON.parse(planned.stdout) as { releases: unknown[] }).releases).toEqual([
      { channel: "stable", sequence: 2, draft: false },
      { channel: "stable", sequence: 1, draft: false },
      { channel: "stable", sequence: 2, draft: true },
    ]);
    const { stdout } = await nixosPull(["prune", operator.mirror, "--keep", "1"]);
    expect(stdout.split("\n").slice(1)).toEqual([
      "Release 2 of stable is gone.",
      "Release 1 of stable is gone.",
      "A draft of release 2 of stable is gone.",
      "Of canary this release stays: 1 (in force); `release abort` has nothing to go back to.",
      "Of stable this release stays: 3 (in force); `release abort` has nothing to go back to.",
      "",
    ]);
  });

  test("removes nothing where it cannot tell what a release in force needs", async () => {
    const operator = await releases();
    const before = await archivesOf(operator);
    const manifest = join(operator.mirror, "channels/stable/manifest.json");
    await copyFile(manifest, join(operator.directory, "manifest.json"));
    await writeFile(manifest, "{}");
    const refused = await nixosPull(["prune", operator.mirror]);
    expect(refused.exitCode).toBe(10);
    expect(refused.stderr).toContain("PUBLISH_FAILED: nothing was removed");
    expect(await archivesOf(operator)).toEqual(before);
  });

  test("waits for no publish: it is refused while one is at work", async () => {
    const operator = await createOperator();
    const slow = await buildSystem({ payloadBytes: 3_000_000 });
    const publishing = startCommand([
      ...["publish", "--mirror", operator.mirror, "--key", operator.keyFile, "--whole"],
      ...["--compression", "xz", "--level", "9", "--host", `web1=${slow}`],
    ]);
    await publishing.sees("building web1");
    const refused = await nixosPull(["prune", operator.mirror]);
    expect(refused.stderr).toContain("PUBLISH_LOCKED");
    expect((await publishing.ended).exitCode).toBe(0);
  });
});

describe("an archive that is one host's own and that another host has NARs in", () => {
  /** A system of libraries; each is a path of its own. */
  const CHAIN = (name: string, libraries: readonly number[]): string => `
    let
      build = name: script: derivation {
        inherit name;
        system = builtins.currentSystem;
        builder = "/bin/sh";
        args = [ "-euc" "PATH=/usr/bin:/bin; \${script}" ];
      };
      library = number: build "chain-\${toString number}" "echo \${toString number} > $out";
    in
    build "nixos-system-${name}" ''
      mkdir -p $out/bin $out/etc/systemd/system
      echo '[Service]' > $out/etc/systemd/system/nixos-pull.service
      \${builtins.concatStringsSep "\\n" (map (number: "ln -s \${library number} $out/") [ ${libraries.join(" ")} ])}
      printf '#!/bin/sh\\n' > $out/bin/switch-to-configuration
      chmod +x $out/bin/switch-to-configuration
    ''`;

  /**
   * The release in force has hosts `a` and `web1`. The first archive has what `web1` needs and
   * `a` does not; only the second one, which `a` shares, names it.
   */
  async function chain() {
    const operator = await createOperator();
    await mkdir(join(operator.mirror, "archives"), { recursive: true });
    const systemOf = async (name: string, ...libraries: number[]): Promise<string> => {
      const file = join(operator.directory, `${name}.nix`);
      await writeFile(file, CHAIN(name, libraries));
      return file;
    };
    const added = async (hosts: Record<string, string>): Promise<string> => {
      const before = new Set((await archivesOf(operator)).keys());
      await operator.publish(hosts);
      return [...(await archivesOf(operator)).keys()].find((name) => !before.has(name)) ?? "";
    };
    const web1 = await systemOf("second", 1, 2);
    const first = await added({ web1: await systemOf("first", 1) });
    const second = await added({ web1 });
    const third = await added({ a: await systemOf("third", 2), web1 });
    expect(new Set([first, second, third]).size).toBe(3);
    return { operator, first };
  }

  test("is looked into by prune, which keeps what only it names", async () => {
    const { operator, first } = await chain();
    const pruned = await prune(operator, "--keep", "1");
    expect(pruned.exitCode, pruned.stderr).toBe(0);
    expect([...(await archivesOf(operator)).keys()]).toContain(first);
    expect((await verifies(operator)).exitCode).toBe(0);
  });

  test("is looked into before a release comes into force that needs what only it names", async () => {
    const { operator, first } = await chain();
    await rm(join(operator.mirror, "archives", first));
    const refresh = ["publish", "--mirror", operator.mirror, "--key", operator.keyFile];
    const refused = await nixosPull([...refresh, "--refresh"]);
    expect(refused.exitCode).toBe(10);
    expect(refused.stderr).toMatch(/PUBLISH_FAILED: web1: expected an archive of \d+ bytes at /);
    expect(refused.stderr).toContain(first);
  });
});
