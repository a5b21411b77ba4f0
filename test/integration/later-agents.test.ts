import { readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { beforeAll, beforeEach, expect, test } from "vitest";
import { encodeEnvelope, parseEnvelope, sealEnvelope } from "../../agent/core/formats/envelope.ts";
import { parseManifest, type Manifest } from "../../agent/core/formats/manifest.ts";
import { FEATURE, buildAgentWithFeature, runBundle } from "../support/agent-with-feature.ts";
import { buildSystem } from "../support/closure.ts";
import { nixosPull, type CommandOutput } from "../support/nixos-pull.ts";
import { createHost, createOperator, type Operator, type SandboxHost } from "../support/sandbox.ts";
import { suiteDirectory } from "../support/suite-directory.ts";
import { temporaryDirectory } from "../support/temporary.ts";

/** An agent of today, and one of a later version, to which groups are a feature. */
const directory = suiteDirectory();
let laterBundle: string;
let systems: [string, string, string];
let operator: Operator;

beforeAll(async () => {
  laterBundle = await buildAgentWithFeature(join(directory, "later.cjs"));
  systems = (await Promise.all(
    ["1", "2", "3"].map((generation) => buildSystem({ generation })),
  )) as [string, string, string];
}, 300_000);

beforeEach(async () => {
  operator = await createOperator();
});

/** A command of the later version, expected to work. */
async function later(...args: string[]): Promise<CommandOutput> {
  const output = await runBundle(laterBundle, args);
  expect(output.exitCode, output.stderr).toBe(0);
  return output;
}

function publishLater(system: string, ...args: string[]): Promise<CommandOutput> {
  return later(
    ...["publish", "-m", operator.mirror, "-k", operator.keyFile, "--host", `web1=${system}`],
    ...args,
  );
}

async function inForce(mirror = operator.mirror): Promise<Manifest> {
  const { payload } = parseEnvelope(await readFile(join(mirror, "channels/stable/manifest.json")));
  return JSON.parse(Buffer.from(payload, "base64").toString()) as Manifest;
}

function hostOf(mirror = operator.mirror, settings: object = {}): Promise<SandboxHost> {
  const { publicKey } = operator;
  return createHost({
    mirrors: [pathToFileURL(mirror).href],
    publicKeys: [publicKey],
    ...settings,
  });
}

const releasesOn = (mirror: string): Promise<string[]> =>
  readdir(join(mirror, "channels/stable/releases"));

test("no older agent is led over a release that was paused, nor over its systems", async () => {
  await operator.publish({ web1: systems[0] });
  const old = await hostOf();
  expect((await old.json("apply")).value).toMatchObject({ updated: true });
  await operator.publish({ web1: systems[1] });
  const change = ["-m", operator.mirror, "-k", operator.keyFile];
  const paused = await nixosPull(["release", "pause", "it eats disks", ...change]);
  expect(paused.exitCode, paused.stderr).toBe(0);

  const { stderr } = await publishLater(systems[2], "--group", "web1=canary");
  expect(stderr).toContain("release 3 is no way out: it was paused");
  expect((await inForce()).supported?.map(({ sequence }) => sequence)).toEqual([1]);
  expect((await old.json("apply")).value).toMatchObject({ updated: false });
  expect(await old.profileToplevel()).toBe(systems[0]);
});

test("a release requires what it uses, and leads older agents over the one before", async () => {
  await operator.publish({ web1: systems[0] });
  const old = await hostOf();
  expect((await old.json("apply")).value).toMatchObject({ updated: true });

  // Nothing of the later version is used: the older agent follows.
  await publishLater(systems[1]);
  expect(await inForce()).not.toHaveProperty("requires");
  const { stderr } = await publishLater(systems[2], "--group", "web1=canary", "--support", "1y");
  expect(stderr).toContain(`this release requires ${FEATURE}; hosts whose agents lack that follow`);
  const manifest = await inForce();
  const [way, ...others] = manifest.supported ?? [];
  expect(others).toEqual([]);
  expect(manifest.requires).toEqual([FEATURE]);
  expect(way).toMatchObject({ sequence: 2 });
  const year = 365 * 86_400_000;
  expect(Date.parse(way?.until ?? "") - Date.parse(manifest.createdAt)).toBe(year);
  expect(await releasesOn(operator.mirror)).toEqual([`${way?.digest}.json`]);

  const checked = await old.json("check");
  expect(checked.value).toMatchObject({ decision: "update", release: { sequence: 2 } });
  expect((await old.json("apply")).value).toMatchObject({
    ...{ updated: true, committed: { sequence: 2 } },
  });
  expect(await old.profileToplevel()).toBe(systems[1]);
  // Its agent is still the old one, and says so.
  const stuck = await old.json("apply");
  expect(stuck.exitCode).toBe(4);
  expect(stuck.value).toMatchObject({ error: { code: "AGENT_TOO_OLD" } });
  expect((await old.run("status")).stdout).toContain("AGENT_TOO_OLD");
  // With the newer agent that the release should have brought, it goes on.
  await later("apply", "--config", old.configFile);
  expect(await old.profileToplevel()).toBe(systems[2]);
});

test("prune, mirror and verify keep what older agents need, while it is supported", async () => {
  await operator.publish({ web1: systems[0] });
  await publishLater(systems[1], "--group", "web1=canary");
  await publishLater(systems[2], "--group", "web1=canary");
  const [way] = (await inForce()).supported ?? [];
  expect(way).toMatchObject({ sequence: 1 });
  const { mirror, publicKey } = operator;

  await later("prune", mirror, "--keep", "1");
  const stick = join(await temporaryDirectory(), "stick");
  await later("mirror", mirror, stick, "--public-key", publicKey, "--host", "web1", "--keep", "1");
  for (const place of [mirror, stick]) {
    const verified = await later("verify", place, "--utc", "--public-key", publicKey);
    const until = way?.until.replace(".000Z", "Z");
    expect(verified.stdout).toContain(`Release 1, for older agents until ${until}:\nweb1  ok`);
    const host = await hostOf(place);
    expect((await host.json("apply")).value).toMatchObject({ committed: { sequence: 1 } });
    expect(await host.profileToplevel()).toBe(systems[0]);
  }
  // Today's tools do not touch what they do not understand.
  for (const args of [
    ["prune", mirror],
    ["mirror", mirror, stick, "--public-key", publicKey],
    ["publish", "--refresh", "-m", mirror, "-k", operator.keyFile],
  ]) {
    const { exitCode, stderr } = await nixosPull(args);
    expect(exitCode, args[0]).not.toBe(0);
    expect(stderr, args[0]).toContain(`requires ${FEATURE}`);
  }

  await rm(join(stick, "channels/stable/releases"), { recursive: true });
  const gone = await runBundle(laterBundle, ["verify", stick, "--public-key", publicKey]);
  expect(gone.exitCode).toBe(5);
  expect(gone.stdout).toContain("MIRROR_NOT_FOUND");

  // Support ends: the next release names none, and prune takes the rest away.
  await publishLater(systems[2], "--group", "web1=canary", "--support", "0s");
  expect(await inForce()).not.toHaveProperty("supported");
  await later("prune", mirror, "--keep", "1");
  expect(await releasesOn(mirror)).toEqual([]);
  const host = await hostOf();
  expect((await host.json("apply")).value).toMatchObject({ error: { code: "AGENT_TOO_OLD" } });
});

test("publish and fleet say which hosts could not follow, by their reports", async () => {
  const reports = await temporaryDirectory();
  await operator.publish({ web1: systems[0] });
  const old = await hostOf();
  await old.run("apply");
  const key = (await old.run("report", "--public-key")).stdout.trim();
  expect((await old.run("report", "--out", join(reports, "web1.json"))).exitCode).toBe(0);
  const known = ["--reports", reports, "--report-key", key];
  const { stderr } = await publishLater(systems[1], "--group", "web1=canary", ...known);
  expect(stderr).toMatch(new RegExp(`web1: its agent .* lacks ${FEATURE}, .* it cannot follow`));
  const fleet = await later(
    ...["fleet", reports, "--report-key", key, "-m", operator.mirror],
    ...["--public-key", operator.publicKey],
  );
  expect(fleet.stdout).toContain(`lacks ${FEATURE}`);
});

test("a real mirror with keys of a later version is read by hosts, and signed by nobody", async () => {
  await operator.publish({ web1: systems[0] });
  const manifest: any = await inForce();
  manifest.later = { any: 1 };
  manifest.hosts.web1.later = true;
  manifest.hosts.web1.archive.later = [];
  const file = join(operator.mirror, "channels/stable/manifest.json");
  const payload = Buffer.from(JSON.stringify(manifest));
  await writeFile(file, sealEnvelope(payload, [operator.secretKey]));
  const host = await hostOf();
  expect((await host.json("apply")).value).toMatchObject({ updated: true });
  const draft = join(operator.directory, "draft.json");
  const unsigned = { ...parseEnvelope(await readFile(file)), signatures: [] };
  await writeFile(draft, encodeEnvelope(unsigned));
  const signed = await nixosPull(["sign", draft, "--key", operator.keyFile]);
  expect(signed.exitCode).toBe(4);
  expect(signed.stderr).toContain('unknown key "later"');
});

test("a system for another kind of machine is named, shown, and refused before it is fetched", async () => {
  await operator.publish({ web1: systems[0] });
  const host = await hostOf();
  await host.run("apply");
  const strange = process.arch === "arm64" ? "x86_64-linux" : "aarch64-linux";
  const other = await buildSystem({ generation: "4", platform: strange });
  const { stdout, stderr } = await operator.publish({ web1: other }, "--allow-platform", "web1");
  expect(stdout + stderr).toContain(`platform: ${strange}`);
  expect(parseManifest(Buffer.from(JSON.stringify(await inForce()))).hosts["web1"]).toMatchObject({
    platform: strange,
  });
  const refused = await host.json("apply");
  expect(refused.exitCode).toBe(4);
  expect(refused.value).toMatchObject({ error: { code: "PLATFORM_MISMATCH" } });
  expect(await host.stagingIsClean()).toBe(true);
  expect(await host.profileToplevel()).toBe(systems[0]);
});
