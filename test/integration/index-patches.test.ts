import { readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { manifestIn } from "../../agent/operator/mirror/retained-releases.ts";
import { buildSystem } from "../support/closure.ts";
import { serveMirror } from "../support/mirror-server.ts";
import { parseRange } from "../support/misbehaviours.ts";
import { nixosPull, startCommand } from "../support/nixos-pull.ts";
import { pathWith } from "../support/program-path.ts";
import { createHost, createOperator, type SandboxHost } from "../support/sandbox.ts";

const configuration = (generation: string): Promise<string> =>
  buildSystem({ parts: 8, partBytes: 1_000, generation });

/** How many indexes a host keeps. */
async function keptIndexes({ state }: SandboxHost): Promise<number> {
  const names = await readdir(join(state, "indexes"));
  return names.filter((name) => name.endsWith(".json")).length;
}

/** A host that runs release 1, and a mirror on which release 2 differs by little. */
async function world() {
  const operator = await createOperator();
  const server = await serveMirror(operator.mirror);
  const settings = { mirrors: [server.url], publicKeys: [operator.publicKey] };
  const host = await createHost(settings);
  await operator.publish({ web1: await configuration("1") });
  const first = await host.run("apply");
  if (first.exitCode !== 0) throw new Error(first.stderr);
  const toplevel = await configuration("2");
  await operator.publish({ web1: toplevel });
  const manifestFile = join(operator.mirror, "channels/stable/manifest.json");
  const entry = manifestIn(await readFile(manifestFile)).hosts["web1"];
  const { sha256, index } = entry?.archive ?? {};
  const patch = index?.patches?.[0];
  if (sha256 === undefined || !index || !patch) throw new Error("no patch was made");
  server.requests.length = 0;
  const updated = async (): Promise<string> => {
    const { exitCode, stderr } = await host.run("apply");
    expect(exitCode, stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(toplevel);
    expect(await host.stagingIsClean()).toBe(true);
    return stderr;
  };
  /** Whether the index was read whole. */
  const readWhole = (): boolean =>
    server.requests.some(
      ({ path, range }) => path.includes(sha256) && parseRange(range)?.from === 512,
    );
  return { operator, server, settings, host, toplevel, index, patch, updated, readWhole };
}

const fileOf = (mirror: string, sha256: string): string =>
  join(mirror, "archives", `${sha256}.tar`);

describe("the index of a release that changes little", () => {
  test("comes as a patch to the host's last one, also in the next release", async () => {
    const { operator, host, index, patch, updated, readWhole } = await world();
    expect(patch.size).toBeLessThan(index.size / 3);
    const preview = await host.json("check");
    expect(preview.value).toMatchObject({ decision: "update" });
    await updated();
    expect(readWhole()).toBe(false);
    expect(await keptIndexes(host)).toBe(2);

    const third = await configuration("3");
    await operator.publish({ web1: third });
    const { exitCode, stderr } = await host.run("apply");
    expect(exitCode, stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(third);
    expect(await keptIndexes(host)).toBe(2);
    const verified = await nixosPull(["verify", operator.mirror, "-p", operator.publicKey]);
    expect(verified.exitCode, verified.stdout).toBe(0);
  });

  test("is read whole by a host that has none", async () => {
    const { settings, toplevel, readWhole } = await world();
    const host = await createHost(settings);
    const { exitCode, stderr } = await host.run("apply");
    expect(exitCode, stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(toplevel);
    expect(readWhole()).toBe(true);
  });

  test("is read whole where the patch is not the signed one", async () => {
    const { server, operator, patch, updated, readWhole } = await world();
    const altered = await readFile(fileOf(operator.mirror, patch.archive));
    altered[patch.offset + 20] = (altered[patch.offset + 20] ?? 0) ^ 1;
    server.misbehave = (request, response) => {
      const range = parseRange(request.headers.range);
      if (!request.url?.includes(patch.archive) || !range) return false;
      response.writeHead(206, {
        "content-range": `bytes ${range.from}-${range.to}/${altered.length}`,
      });
      response.end(altered.subarray(range.from, range.to + 1));
      return true;
    };
    const said = await updated();
    expect(said).toContain("its patch did not serve");
    expect(said).toContain("expected sha256");
    expect(readWhole()).toBe(true);
  });

  test("is read whole where the patch is gone from the mirror", async () => {
    const { operator, patch, updated, readWhole } = await world();
    await rm(fileOf(operator.mirror, patch.archive));
    await updated();
    expect(readWhole()).toBe(true);
  });

  test.each([
    ["torn", (text: string) => text.slice(0, text.length / 2)],
    ["another one", (text: string) => text.replace(/"narSize":\d/, '"narSize":9')],
    ["empty", () => ""],
  ])("is read whole where the host's last one is %s", async (_, damage) => {
    const { host, patch, updated, readWhole } = await world();
    const file = join(host.state, "indexes", `${patch.base}.json`);
    await writeFile(file, damage(await readFile(file, "utf8")));
    await updated();
    expect(readWhole()).toBe(true);
  });

  test("is read whole where zstd is missing", async () => {
    const { host, toplevel, readWhole } = await world();
    const env = { PATH: await pathWith(["flock", "nix", "nix-store", "nix-env", "sync"]) };
    const applied = await startCommand(["apply", "--config", host.configFile], env).ended;
    expect(applied.exitCode, applied.stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(toplevel);
    expect(readWhole()).toBe(true);
  });

  test("keeps its patch through a prune, and a refresh", async () => {
    const { operator, patch, updated, readWhole } = await world();
    const pruned = await nixosPull(["prune", operator.mirror, "--keep", "1"]);
    expect(pruned.exitCode, pruned.stderr).toBe(0);
    const refresh = ["publish", "--mirror", operator.mirror, "--key", operator.keyFile];
    const refreshed = await nixosPull([...refresh, "--refresh"]);
    expect(refreshed.exitCode, refreshed.stderr).toBe(0);
    expect(await readdir(join(operator.mirror, "archives"))).toContain(`${patch.archive}.tar`);
    await updated();
    expect(readWhole()).toBe(false);
  });

  test("comes without a patch where many hosts would read about it in vain", async () => {
    const operator = await createOperator();
    const names = Array.from({ length: 40 }, (_, at) => `web${at + 1}`);
    const systems = async (generation: string): Promise<Record<string, string>> => {
      const toplevel = await configuration(generation);
      return Object.fromEntries(names.map((name) => [name, toplevel]));
    };
    await operator.publish(await systems("1"));
    await operator.publish(await systems("2"));
    const file = join(operator.mirror, "channels/stable/manifest.json");
    const { hosts } = manifestIn(await readFile(file));
    for (const { archive } of Object.values(hosts)) {
      expect(archive.index).not.toHaveProperty("patches");
    }
  });
});

describe("a mirror that was copied", () => {
  /** The world's mirror, copied over HTTP, and its host, which now follows the copy. */
  async function copied(...args: string[]) {
    const { operator, server, host, ...rest } = await world();
    const copy = join(operator.directory, "copy");
    const mirror = (...more: string[]): ReturnType<typeof nixosPull> =>
      nixosPull([
        ...["mirror", server.url, copy, "--public-key", operator.publicKey, "--json"],
        ...[...args, ...more],
      ]);
    const output = await mirror();
    expect(output.exitCode, output.stderr).toBe(0);
    const second = await serveMirror(copy);
    const settings = JSON.parse(await readFile(host.configFile, "utf8")) as object;
    await writeFile(host.configFile, JSON.stringify({ ...settings, mirrors: [second.url] }));
    const verify = (): ReturnType<typeof nixosPull> =>
      nixosPull(["verify", copy, "-p", operator.publicKey, "--json"]);
    const patched = (): boolean =>
      second.requests.some(
        ({ path, status }) => path.includes(rest.patch.archive) && status === 206,
      );
    return { operator, server, host, copy, mirror, output, verify, patched, ...rest };
  }

  test("has the patches too, and hosts of it read no whole index", async () => {
    const { copy, mirror, output, verify, updated, patch, patched } = await copied();
    expect(JSON.parse(output.stdout)).toMatchObject({ copied: { patches: 1 } });
    expect((await verify()).exitCode).toBe(0);
    expect(JSON.parse((await mirror()).stdout)).toMatchObject({ copied: { patches: 0 } });
    expect((await mirror("--keep", "1")).exitCode).toBe(0);
    expect(await readdir(join(copy, "archives"))).toContain(`${patch.archive}.tar`);
    await updated();
    expect(patched()).toBe(true);
  });

  test("is complete without patches that could not be had, and gets them the next time", async () => {
    const { operator, copy, mirror, verify, patch } = await copied();
    const file = fileOf(operator.mirror, patch.archive);
    const bytes = await readFile(file);
    await rm(fileOf(copy, patch.archive));
    const altered = Buffer.from(bytes);
    altered[patch.offset + 5] = (altered[patch.offset + 5] ?? 0) ^ 1;
    for (const damage of [() => rm(file), () => writeFile(file, altered)]) {
      await damage();
      const again = await mirror();
      expect(again.exitCode, again.stderr).toBe(0);
      expect(await readdir(join(copy, "archives"))).not.toContain(`${patch.archive}.tar`);
      expect((await verify()).exitCode).toBe(0);
    }
    await writeFile(file, bytes);
    expect(JSON.parse((await mirror()).stdout)).toMatchObject({ copied: { patches: 1 } });
    expect(await readFile(fileOf(copy, patch.archive))).toEqual(bytes);
  });

  test("is not whole where a patch on it is damaged: verify says so, the next copy mends it", async () => {
    const { copy, mirror, verify, patch } = await copied();
    const file = fileOf(copy, patch.archive);
    const bytes = await readFile(file);
    await writeFile(file, bytes.subarray(0, bytes.length - 1));
    const { exitCode, stdout } = await verify();
    expect(exitCode).toBe(6);
    const { channels } = JSON.parse(stdout) as { channels: { hosts: { code?: string }[] }[] };
    expect(channels[0]?.hosts.map(({ code }) => code)).toEqual(["ARCHIVE_CORRUPT"]);
    expect((await mirror()).exitCode).toBe(0);
    expect((await verify()).exitCode).toBe(0);
  });
});
