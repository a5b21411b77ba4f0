import { chmod, readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { buildSystem } from "../support/closure.ts";
import { serveMirror, type MirrorServer } from "../support/mirror-server.ts";
import { parseRange } from "../support/misbehaviours.ts";
import { nixosPull, startCommand } from "../support/nixos-pull.ts";
import { pathWith } from "../support/program-path.ts";
import { createHost, createOperator, type SandboxHost } from "../support/sandbox.ts";

const PART = 300_000;

/** The same contents under other hashes, as a mass rebuild makes them. */
const rebuilt = (salt: string): Promise<string> =>
  buildSystem({ parts: 3, partBytes: PART, salt, generation: salt });

/** A host that runs the first build, and a mirror that has the second with deltas. */
async function world() {
  const operator = await createOperator();
  const server = await serveMirror(operator.mirror);
  const settings = { mirrors: [server.url], publicKeys: [operator.publicKey] };
  const host = await createHost(settings);
  await operator.publish({ web1: await rebuilt("a") });
  const first = await host.run("apply");
  if (first.exitCode !== 0) throw new Error(first.stderr);
  const archives = new Set(await readdir(join(operator.mirror, "archives")));
  const toplevel = await rebuilt("b");
  await operator.publish({ web1: toplevel }, "--deltas", "1");
  const made = await readdir(join(operator.mirror, "archives"));
  const fresh = await Promise.all(
    made
      .filter((name) => !archives.has(name))
      .map(async (name) => {
        const file = join(operator.mirror, "archives", name);
        return { file, bytes: await readFile(file) };
      }),
  );
  const deltas = fresh.find(({ bytes }) => bytes.subarray(0, 6).toString() === "deltas");
  if (!deltas) throw new Error("no archive of deltas was made");
  server.requests.length = 0;
  return { operator, server, settings, host, toplevel, deltas };
}

function bytesAsked({ requests }: MirrorServer): number {
  return requests
    .map(({ range }) => parseRange(range))
    .reduce((sum, range) => sum + (range ? range.to - range.from + 1 : 0), 0);
}

/** What the history says of deltas. */
async function deltasOf(host: SandboxHost): Promise<unknown> {
  const { value } = await host.json("history");
  return (value.entries as { deltas?: unknown }[]).findLast(({ deltas }) => deltas !== undefined)
    ?.deltas;
}

describe("a mass rebuild", () => {
  test("comes as deltas that are next to nothing, and every path is the signed one", async () => {
    const { operator, server, host, toplevel, deltas } = await world();
    expect(deltas.bytes.length).toBeLessThan(6_000);
    const verified = await nixosPull(["verify", operator.mirror, "-p", operator.publicKey]);
    expect(verified.exitCode, verified.stdout).toBe(0);
    const { value: foreseen } = await host.json("check");
    const { downloadBytes } = (foreseen as { preview: { downloadBytes: number } }).preview;
    expect(downloadBytes).toBeLessThan(20_000);
    server.requests.length = 0;
    const { exitCode, stderr } = await host.run("apply");
    expect(exitCode, stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(toplevel);
    expect(await host.stagingIsClean()).toBe(true);
    expect(bytesAsked(server)).toBeLessThan(20_000);
    const status = await host.json("status");
    expect(status.value).toMatchObject({ lastImport: { sequence: 2, deltas: { failed: 0 } } });
    expect(await deltasOf(host)).toMatchObject({ failed: 0 });
    const { used } = (await deltasOf(host)) as { used: number };
    expect(used).toBeGreaterThanOrEqual(3);
  });

  test.each([[["--deltas", "1"]], [[]]])(
    "downloads what publish said before, as the host foresees it (%j)",
    async (options) => {
      const operator = await createOperator();
      const settings = {
        mirrors: [`file://${operator.mirror}`],
        publicKeys: [operator.publicKey],
      };
      const host = await createHost(settings);
      const first = await operator.publish({ web1: await rebuilt("c") }, "--json");
      expect(JSON.parse(first.stdout).hosts).toMatchObject([{ download: null }]);
      expect((await host.run("apply")).exitCode).toBe(0);
      const next = { web1: await rebuilt("d") };
      const second = await operator.publish(next, "--json", ...options);
      const [{ download }] = JSON.parse(second.stdout).hosts;
      const { value } = await host.json("check");
      const { newPaths, downloadBytes } = value.preview;
      expect(download).toEqual({ paths: newPaths, bytes: downloadBytes });
      expect(downloadBytes).toBeGreaterThan(0);
      // With deltas, next to nothing of the three parts.
      if (options.length > 0) expect(downloadBytes).toBeLessThan(20_000);
      else expect(downloadBytes).toBeGreaterThan(3 * PART);
      const again = await operator.publish(next, "--json", ...options);
      expect(JSON.parse(again.stdout).hosts).toMatchObject([{ download: { paths: 0, bytes: 0 } }]);
    },
  );

  test("comes whole to a host that has nothing", async () => {
    const { settings, toplevel } = await world();
    const host = await createHost(settings);
    const { exitCode, stderr } = await host.run("apply");
    expect(exitCode, stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(toplevel);
    expect(await deltasOf(host)).toBeUndefined();
  });

  test.each([
    [
      "where zstd is missing",
      "zstd is not on PATH",
      {},
      ["flock", "nix", "nix-store", "nix-env", "sync"],
    ],
    ["where the NARs are too large for it", "", { deltaNarBytes: 1_000 }, []],
  ])("comes whole %s", async (_, said, limits, programs) => {
    const { host, toplevel } = await world();
    const config = JSON.parse(await readFile(host.configFile, "utf8")) as { limits: object };
    config.limits = { ...config.limits, ...limits };
    await writeFile(host.configFile, JSON.stringify(config));
    const env = programs.length > 0 ? { PATH: await pathWith(programs) } : {};
    const applied = await startCommand(["apply", "--config", host.configFile], env).ended;
    expect(applied.exitCode, applied.stderr).toBe(0);
    expect(applied.stderr).toContain(said);
    expect(await host.profileToplevel()).toBe(toplevel);
  });

  test("comes whole where the old path is no longer what was signed, which is counted", async () => {
    const { host, toplevel } = await world();
    const store = join(host.root, "nix/store");
    for (const name of await readdir(store)) {
      if (!/-part-\d$/.test(name)) continue;
      const file = join(store, name, "contents");
      await chmod(file, 0o644);
      const bytes = await readFile(file);
      bytes[1000] = (bytes[1000] ?? 0) ^ 1;
      await writeFile(file, bytes);
    }
    const { exitCode, stderr } = await host.run("apply");
    expect(exitCode, stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(toplevel);
    expect(await host.stagingIsClean()).toBe(true);
    expect(await deltasOf(host)).toMatchObject({ failed: 3 });
  });

  test("with a delta that is not the signed one is taken from another mirror", async () => {
    const { operator, server, settings, host, toplevel, deltas } = await world();
    const altered = Buffer.from(deltas.bytes);
    altered[600] = (altered[600] ?? 0) ^ 1;
    server.misbehave = (request, response) => {
      const range = parseRange(request.headers.range);
      if (!deltas.file.endsWith(request.url ?? "-") || !range) return false;
      const size = deltas.bytes.length;
      response.writeHead(206, { "content-range": `bytes ${range.from}-${range.to}/${size}` });
      response.end(altered.subarray(range.from, range.to + 1));
      return true;
    };
    const alone = await host.json("apply");
    expect(alone.value).toMatchObject({ error: { code: "ARCHIVE_CORRUPT" } });
    expect(await host.stagingIsClean()).toBe(true);

    const mirrors = [...settings.mirrors, `file://${operator.mirror}`];
    const config = JSON.parse(await readFile(host.configFile, "utf8")) as object;
    await writeFile(host.configFile, JSON.stringify({ ...config, mirrors }));
    const { exitCode, stderr } = await host.run("apply");
    expect(exitCode, stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(toplevel);
  });
});
