import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { encodeEnvelope, parseEnvelope } from "../../agent/core/formats/envelope.ts";
import { encodeManifest, parseManifest, type Manifest } from "../../agent/core/formats/manifest.ts";
import { buildSystem } from "../support/closure.ts";
import { nixosPull, type CommandOutput } from "../support/nixos-pull.ts";
import { createHost, createOperator, type Operator } from "../support/sandbox.ts";
import { temporaryDirectory } from "../support/temporary.ts";

/** Release 1 is in force; a draft of release 2 has another system for web1, and one for db1. */
let operator: Operator;
let first: string;
let second: string;
let genuine: string;

beforeEach(async () => {
  operator = await createOperator();
  first = await buildSystem({ generation: "1", payloadBytes: 1000 });
  second = await buildSystem({ generation: "2", payloadBytes: 2000 });
  await operator.publish({ web1: first, old1: first });
  genuine = join(operator.directory, "draft.json");
  await operator.publish({ web1: second, db1: second }, "--unsigned", genuine);
});

/** A draft as somebody else may have changed it before anybody signed it. */
async function draft(change: (manifest: Manifest) => unknown = () => null): Promise<string> {
  const envelope = parseEnvelope(await readFile(genuine));
  const manifest = parseManifest(Buffer.from(envelope.payload, "base64"));
  change(manifest);
  const file = join(await temporaryDirectory(), "draft.json");
  const payload = encodeManifest(manifest).toString("base64");
  await writeFile(file, encodeEnvelope({ ...envelope, payload }));
  return file;
}

/** Signs with no memory but its own, as another person elsewhere does. */
async function sign(file: string, ...args: string[]): Promise<CommandOutput> {
  const memory = join(await temporaryDirectory(), "memory");
  return nixosPull(["sign", file, "--key", operator.keyFile, "--memory", memory, ...args]);
}

const against = (): string[] => ["--against", operator.mirror];

test("sign shows hosts and packages that change, before it signs", async () => {
  const { stdout, stderr, exitCode } = await sign(await draft(), ...against());
  expect(exitCode, stderr).toBe(0);
  expect(stdout).toContain("Release 2 of stable changes:\nCompared with release 1, digest ");
  expect(stdout).toContain("+ db1 (added)");
  expect(stdout).toContain("- old1 (removed)");
  expect(stdout).toContain(`~ system: ${first} → ${second}`);
  expect(stdout).toMatch(/~ payload 1000 → 2000, \+1000 B\n/);
  expect(stdout).toMatch(/~ nixos-system-web1 1 → 2/);
  expect(stdout).toMatch(/without a version, .*: etc\n/);
  expect(stdout).toMatch(/~ sequence: 1 → 2\n/);
  expect(stdout.indexOf("~ sequence")).toBeLessThan(stdout.indexOf("Signed release 2"));
});

describe("what a draft hides", () => {
  const program = ["/bin/sh", "-c", "evil"];
  const check = { kind: "command" as const, name: "smoke", timeout: "10s", command: program };
  const hide = (manifest: Manifest): void => {
    const entry = manifest.hosts["web1"];
    if (!entry) throw new Error("no web1");
    const { toplevel, closureSize, archive } = entry;
    const stage = { sequence: 1, digest: "d".repeat(64), toplevel, closureSize, archive };
    entry.through = [{ ...stage, activation: { mode: "boot" } }];
    entry.activation = { checks: [check] };
    entry.turn = "now";
    manifest.rollout = { start: manifest.createdAt, salt: "s", waves: [{ share: 1, after: "3d" }] };
    manifest.defaults.activation.checks = [{ ...check, name: "everywhere" }];
    manifest.expiresAt = "2099-01-01T00:00:00.000Z";
  };
  const seen = [
    "+ first becomes: release 1; digest dddd",
    '+ command run as root: "smoke": command {"timeout":"10s","command":["/bin/sh","-c","evil"]}',
    '+ default command run as root: "everywhere": command ',
    "+ turn: now",
    "+ wave: 100 % of all; after 3d",
    "→ 2099-01-01T00:00:00.000Z",
  ];

  test("is shown by sign", async () => {
    const { stdout } = await sign(await draft(hide), ...against());
    for (const text of seen) expect(stdout).toContain(text);
  });

  test("is shown by verify", async () => {
    const file = await draft(hide);
    expect((await sign(file)).exitCode).toBe(0);
    const verify = ["verify", file, "--public-key", operator.publicKey, ...against()];
    const { stdout, stderr, exitCode } = await nixosPull(verify);
    expect(exitCode, stderr).toBe(0);
    for (const text of seen) expect(stdout).toContain(text);
    const json = JSON.parse((await nixosPull([...verify, "--json"])).stdout);
    expect(json.difference.hosts.map((host: { hostname: string }) => host.hostname)).toEqual([
      ...["db1", "old1", "web1"],
    ]);
  });

  test("is shown whole if there is nothing to compare with", async () => {
    const { stdout, stderr } = await sign(await draft(hide));
    expect(stdout).toContain("Compared with nothing");
    for (const text of seen.slice(0, -1)) expect(stdout).toContain(text);
    expect(stdout).toContain("+ expires: 2099-01-01T00:00:00.000Z");
    expect(stderr).toContain("--against");
  });

  test("is in the JSON, all of it", async () => {
    const json = JSON.parse((await sign(await draft(hide), ...against(), "--json")).stdout);
    const { difference } = json;
    expect(difference.from).toMatchObject({ epoch: 0, sequence: 1 });
    const whats = difference.release.map(({ what }: { what: string }) => what);
    expect(whats).toEqual(
      expect.arrayContaining(["expires", "default command run as root", "wave"]),
    );
    const web1 = difference.hosts.find(({ hostname }: { hostname: string }) => hostname === "web1");
    expect(web1.changes.map(({ what }: { what: string }) => what)).toEqual(
      expect.arrayContaining(["system", "first becomes", "command run as root", "turn"]),
    );
    expect(web1.packages).toContainEqual({
      ...{ name: "payload", kind: "changed", before: ["1000"], after: ["2000"] },
      ...{ beforeBytes: expect.any(Number), afterBytes: expect.any(Number) },
    });
  });

  test("in a key that this version does not know is not signed", async () => {
    for (const [place, change] of [
      ["hosts.web1", (it: any) => void (it.hosts.web1.runs = "evil")],
      ["", (it: any) => void (it.hook = "evil")],
    ] as const) {
      const file = await draft(change);
      const before = await readFile(file, "utf8");
      const { exitCode, stderr } = await sign(file);
      expect(exitCode).toBe(4);
      expect(stderr).toContain("MANIFEST_INVALID");
      expect(stderr).toContain(place);
      expect(await readFile(file, "utf8")).toBe(before);
    }
  });

  test("never reaches the terminal as an escape", async () => {
    const file = await draft((manifest) => {
      const checks = [{ ...check, name: "\u009b31m\u202e", command: ["\u001b[2J"] }];
      manifest.defaults.activation.checks = checks;
    });
    const { stdout } = await sign(file, ...against());
    expect(stdout).not.toMatch(/[\u001b\u009b\u202e]/);
  });
});

test("--against that is not the release before it refuses to sign", async () => {
  const other = await createOperator();
  await other.publish({ web1: first });
  const file = await draft();
  const { stderr, exitCode } = await sign(file, "--against", other.mirror);
  expect(stderr).toContain("RELEASE_FORKED");
  expect(exitCode).toBe(10);
});

test("--against takes the envelope in force too", async () => {
  const envelope = join(operator.mirror, "channels/stable/manifest.json");
  const { stdout } = await sign(await draft(), "--against", envelope);
  expect(stdout).toContain("Compared with release 1");
  expect(stdout).toContain("packages: unknown");
});

describe("release diff", () => {
  const diff = (...args: string[]): Promise<CommandOutput> =>
    nixosPull(["release", "diff", "--mirror", operator.mirror, ...args]);

  test("shows what a draft changes, and the release in force without one before", async () => {
    const { stdout } = await diff("--draft", genuine);
    expect(stdout).toContain("Release 2 of stable, signatures not verified");
    expect(stdout).toMatch(/~ payload 1000 → 2000/);
    const { stdout: whole } = await diff("--public-key", operator.publicKey);
    expect(whole).toContain("Release 1 of stable, signed by test-1");
    expect(whole).toContain("Compared with nothing");
  });

  test("compares any two retained releases, and writes nothing", async () => {
    const copy = join(await temporaryDirectory(), "mirror");
    await cp(operator.mirror, copy, { recursive: true });
    const publish = ["publish", "--mirror", copy, "--key", operator.keyFile, "--memory"];
    const memory = join(operator.directory, "copy.memory");
    for (const host of [`web1=${second}`, `web1=${first}`]) {
      const output = await nixosPull([...publish, memory, "--host", host]);
      expect(output.exitCode, output.stderr).toBe(0);
      expect(output.stderr).toContain("Compared with release");
    }
    const compare = ["release", "diff", "--mirror", copy, "--json"];
    const { difference } = JSON.parse((await nixosPull([...compare, "--from", "1"])).stdout);
    expect(difference.hosts).toMatchObject([
      { hostname: "old1", kind: "removed" },
      // The same system, with patches from the indexes between.
      { hostname: "web1", kind: "changed", changes: [{ what: "archive" }], packages: null },
    ]);
    const { stdout } = await nixosPull([...compare, "--to", "3"]);
    expect(JSON.parse(stdout).difference.hosts).toMatchObject([
      { hostname: "old1", kind: "removed" },
      { hostname: "web1", kind: "changed" },
    ]);
    const missing = await nixosPull([...compare, "--from", "9"]);
    expect(missing.stderr).toMatch(
      /--from: expected a release of stable that is retained here, found 9; these are retained: 4, 3, 1\n/,
    );
  });
});

test("check says which packages an update changes, and what it runs as root", async () => {
  const mine = await createOperator();
  const host = await createHost({
    mirrors: [`file://${mine.mirror}`],
    publicKeys: [mine.publicKey],
  });
  await mine.publish({ web1: first });
  await host.run("apply");
  const hosts = join(mine.directory, "hosts.json");
  const checks = [{ kind: "command", name: "smoke", command: ["/bin/smoke"] }];
  await writeFile(hosts, JSON.stringify({ web1: { system: second, activation: { checks } } }));
  const output = await mine.publish({}, "--hosts", hosts);
  expect(output.stderr).toContain('+ command run as root: "smoke": command');
  expect(output.stderr).toMatch(/~ payload 1000 → 2000/);
  const { stdout } = await host.run("check");
  expect(stdout).toMatch(/ {2}~ payload 1000 → 2000, /);
  expect(stdout).toContain('It would run as root: smoke: ["/bin/smoke"]');
  expect((await host.json("check")).value.preview.packages).toContainEqual(
    expect.objectContaining({ name: "payload", before: ["1000"], after: ["2000"] }),
  );
});
