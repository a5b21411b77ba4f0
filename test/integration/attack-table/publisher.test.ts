import { access, cp, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { parseEnvelope, sealEnvelope } from "../../../agent/core/formats/envelope.ts";
import {
  encodeManifest,
  parseManifest,
  type Manifest,
} from "../../../agent/core/formats/manifest.ts";
import { sha256Hex } from "../../../agent/core/formats/sha256.ts";
import { SignerMemoryFile } from "../../../agent/operator/channel/signer-memory-file.ts";
import { buildSystem } from "../../support/closure.ts";
import { nixosPull, type CommandOutput } from "../../support/nixos-pull.ts";
import {
  createHost,
  createOperator,
  type Operator,
  type SandboxHost,
} from "../../support/sandbox.ts";

/** A publisher whose mirror, drafts and memory somebody else changes behind its back. */
let operator: Operator;
let host: SandboxHost;
let old: string;
let current: string;

const memoryFile = (): string => join(operator.directory, "key.memory");
const manifestFile = (): string => join(operator.mirror, "channels/stable/manifest.json");
const copy = (name: string): string => join(operator.directory, name);

async function inForce(): Promise<Manifest> {
  const { payload } = parseEnvelope(await readFile(manifestFile()));
  return parseManifest(Buffer.from(payload, "base64"));
}

function run(...args: string[]): Promise<CommandOutput> {
  return nixosPull([...args, "--mirror", operator.mirror, "--key", operator.keyFile]);
}

const refresh = (...args: string[]): Promise<CommandOutput> => run("publish", "--refresh", ...args);

async function expectRefused(output: Promise<CommandOutput>, code: string): Promise<string> {
  const before = await readFile(manifestFile(), "utf8").catch(() => null);
  const { exitCode, stderr } = await output;
  expect(stderr).toContain(`nixos-pull: ${code}: `);
  expect(exitCode).toBe(10);
  expect(await readFile(manifestFile(), "utf8").catch(() => null)).toBe(before);
  return stderr;
}

async function setBack(name: string): Promise<void> {
  await rm(operator.mirror, { recursive: true });
  await cp(copy(name), operator.mirror, { recursive: true });
}

beforeEach(async () => {
  operator = await createOperator();
  old = await buildSystem({ generation: "1" });
  current = await buildSystem({ generation: "2" });
  await operator.publish({ web1: old });
  await cp(operator.mirror, copy("release-1"), { recursive: true });
  await operator.publish({ web1: current });
  await refresh();
  host = await createHost({
    mirrors: [`file://${operator.mirror}`],
    publicKeys: [operator.publicKey],
  });
  expect((await host.json("apply")).value).toMatchObject({ updated: true });
  expect(await host.profileToplevel()).toBe(current);
});

describe("a mirror that is set back to a genuine older release", () => {
  test("is not extended, and both releases are shown", async () => {
    const digests = (await inForce()).history.releases.map(({ digest }) => digest);
    await setBack("release-1");
    const shown = await expectRefused(refresh(), "RELEASE_BEHIND");
    expect(shown).toContain(`${memoryFile()} knows release 3 with digest`);
    expect(shown).toContain(`${operator.mirror} has release 1 with digest ${digests[0]}`);
    await expectRefused(run("release", "pause", "stop"), "RELEASE_BEHIND");
    await expectRefused(run("publish", "--host", `web1=${old}`), "RELEASE_BEHIND");
  });

  test("is not extended either if it is emptied", async () => {
    await rm(operator.mirror, { recursive: true });
    await expectRefused(run("publish", "--host", `web1=${old}`), "RELEASE_BEHIND");
    await expectRefused(
      run("publish", "--host", `web1=${old}`, "--sequence", "100"),
      "RELEASE_BEHIND",
    );
  });

  test("brings no host back to it, even if nothing is remembered", async () => {
    await setBack("release-1");
    const codes: unknown[] = [];
    for (let round = 0; round < 4; round++) {
      expect((await refresh("--memory", copy("another.memory"))).exitCode).toBe(0);
      codes.push((await host.json("check")).value.error?.code);
    }
    expect((await inForce()).sequence).toBe(5);
    expect(codes).toEqual([
      "SEQUENCE_REPLAYED",
      "SEQUENCE_CONFLICT",
      "SEQUENCE_FORKED",
      "SEQUENCE_FORKED",
    ]);
    await host.json("apply");
    expect(await host.profileToplevel()).toBe(current);
  });

  test("only by its manifest: what the mirror retains shows it", async () => {
    await cp(join(copy("release-1"), "channels"), join(operator.mirror, "channels"), {
      recursive: true,
    });
    const without = ["--memory", copy("another.memory")];
    const shown = await expectRefused(refresh(...without), "RELEASE_BEHIND");
    expect(shown).toContain("retains release 3");
  });

  test("is left behind by a new epoch, which hosts follow", async () => {
    await setBack("release-1");
    const output = await refresh("--new-epoch", "release 3 was lost");
    expect(output.stderr).toContain("RELEASE_BEHIND");
    expect(output.exitCode, output.stderr).toBe(0);
    expect(await inForce()).toMatchObject({ epoch: { number: 1 }, sequence: 1 });
    expect((await host.json("apply")).value).toMatchObject({ updated: true });
    expect((await refresh()).exitCode).toBe(0);
  });
});

describe("a mirror that contradicts what was signed", () => {
  /** Another genuine release 3, as a publisher without memory would have made it. */
  async function fork(changes: (manifest: Manifest) => void): Promise<void> {
    const manifest = await inForce();
    changes(manifest);
    await writeFile(manifestFile(), sealEnvelope(encodeManifest(manifest), [operator.secretKey]));
  }

  test("by another release of that number, or by what comes after one", async () => {
    const genuine = await readFile(memoryFile(), "utf8");
    await fork((manifest) => void (manifest.expiresAt = "2099-01-01T00:00:00.000Z"));
    const shown = await expectRefused(refresh(), "RELEASE_FORKED");
    const [known] = /[0-9a-f]{64}/.exec(genuine) ?? [""];
    expect(shown).toContain(known);
    await fork((manifest) => {
      manifest.sequence = 4;
      manifest.history.releases.push({ sequence: 3, digest: "a".repeat(64) });
    });
    expect(await expectRefused(refresh(), "RELEASE_FORKED")).toContain("a".repeat(64));
  });
});

describe("drafts", () => {
  const draft = (): string => copy("draft.json");
  const fromDraft = (): Promise<CommandOutput> =>
    nixosPull([
      ...["publish", "--mirror", operator.mirror, "--from-draft", draft()],
      ...["--public-key", operator.publicKey, "--key", operator.keyFile],
    ]);

  test("reserve their number; an abandoned one is skipped and blocks nothing", async () => {
    expect((await refresh("--draft", draft())).exitCode).toBe(0);
    const next = await refresh();
    expect(next.exitCode, next.stderr).toBe(0);
    const manifest = await inForce();
    expect(manifest.sequence).toBe(5);
    expect(manifest.history.releases.map(({ sequence }) => sequence)).toEqual([1, 2, 3]);
    expect((await host.json("apply")).value).toMatchObject({ error: null });
    await expectRefused(fromDraft(), "RELEASE_BEHIND");
    expect((await refresh()).exitCode).toBe(0);
    expect((await inForce()).sequence).toBe(6);
  });

  test("reserve their number on the mirror too, for whoever has no memory of them", async () => {
    expect((await refresh("--draft", draft())).exitCode).toBe(0);
    expect((await refresh("--memory", copy("another.memory"))).exitCode).toBe(0);
    expect((await inForce()).sequence).toBe(5);
  });

  test("that are none hold nothing up", async () => {
    const drafts = join(operator.mirror, ".publish/drafts/stable");
    await mkdir(drafts, { recursive: true });
    // One is no name that a draft can have, the other is no draft.
    await writeFile(join(drafts, "stray.json"), "{");
    await writeFile(join(drafts, `${"0".repeat(64)}.json`), "{");
    const output = await refresh();
    expect(output.exitCode, output.stderr).toBe(0);
    expect(output.stderr).toContain("drafts on the mirror reserve no number: ENVELOPE_INVALID");
  });

  test("come into force one after the other only if each knows the one before", async () => {
    expect((await refresh("--draft", draft())).exitCode).toBe(0);
    expect((await refresh("--draft", copy("second.json"))).exitCode).toBe(0);
    const first = await fromDraft();
    expect(first.exitCode, first.stderr).toBe(0);
    await cp(copy("second.json"), draft());
    await expectRefused(fromDraft(), "RELEASE_FORKED");
    await rm(memoryFile());
    expect(await expectRefused(fromDraft(), "RELEASE_FORKED")).toContain("Make it again");
  });

  test("of one number are not signed twice, nor one that is older than the last", async () => {
    const sign = (file: string): Promise<CommandOutput> =>
      nixosPull(["sign", file, "--key", operator.keyFile]);
    expect((await refresh("--unsigned", draft(), "--memory", copy("a"))).exitCode).toBe(0);
    await rm(join(operator.mirror, ".publish/drafts"), { recursive: true });
    const other = ["--unsigned", copy("other.json"), "--memory", copy("b"), "--expires", "9d"];
    expect((await refresh(...other)).exitCode).toBe(0);
    expect((await sign(draft())).exitCode).toBe(0);
    expect((await sign(draft())).exitCode).toBe(0);
    await expectRefused(sign(copy("other.json")), "RELEASE_FORKED");
    await rm(join(operator.mirror, ".publish/drafts"), { recursive: true });
    const later = ["--sequence", "9", "--unsigned", copy("later.json"), "--memory", copy("c")];
    expect((await refresh(...later)).exitCode).toBe(0);
    expect((await sign(copy("later.json"))).exitCode).toBe(0);
    await expectRefused(sign(copy("other.json")), "RELEASE_FORKED");
  });
});

describe("a draft after a release that nobody signed", () => {
  const evil = (): string => copy("evil.json");
  const stick = (): string => copy("stick");
  const shell = ["/bin/sh", "-c", "evil"];

  /** A release 4 that nobody signed, retained on a stick, and a draft of release 5 after it. */
  beforeEach(async () => {
    const genuine = copy("genuine.json");
    const unsigned = ["--unsigned", genuine, "--memory", copy("other.memory")];
    expect((await refresh(...unsigned)).exitCode).toBe(0);
    const envelope = parseEnvelope(await readFile(genuine));
    const manifest = parseManifest(Buffer.from(envelope.payload, "base64"));
    manifest.defaults.activation.checks = [
      { kind: "command", name: "smoke", timeout: "10s", command: shell },
    ];
    const seal = (): string => sealEnvelope(encodeManifest(manifest), []);
    await mkdir(join(stick(), ".publish/releases/stable"), { recursive: true });
    await mkdir(join(stick(), "channels/stable"), { recursive: true });
    await writeFile(join(stick(), ".publish/releases/stable/0-4.json"), seal());
    manifest.history.releases.push({ sequence: 4, digest: sha256Hex(encodeManifest(manifest)) });
    manifest.sequence = 5;
    await writeFile(evil(), seal());
    await writeFile(join(stick(), "channels/stable/manifest.json"), seal());
  });

  const sign = (target: string, ...args: string[]): Promise<CommandOutput> =>
    nixosPull(["sign", target, "--key", operator.keyFile, ...args]);

  test("is not signed if the memory knows the channel, and the memory learns nothing of it", async () => {
    const before = await readFile(memoryFile(), "utf8");
    const targets = [[evil()], [evil(), "--against", stick()], [stick()]] as const;
    for (const [target, ...args] of targets) {
      const shown = await expectRefused(sign(target, ...args), "RELEASE_FORKED");
      expect(shown).toContain("THAT RELEASE IS UNKNOWN");
      expect(shown).toContain("--against MIRROR");
    }
    expect(await readFile(memoryFile(), "utf8")).toBe(before);
    expect((await refresh()).exitCode).toBe(0);
  });

  test("is shown whole to whoever remembers nothing, and believed by no memory", async () => {
    const against = ["--against", stick()];
    const signed = await sign(evil(), ...against, "--memory", copy("new.memory"));
    expect(signed.exitCode, signed.stderr).toBe(0);
    expect(signed.stderr).toContain("THAT RELEASE IS UNKNOWN");
    expect(signed.stdout).toContain("Compared with nothing");
    expect(signed.stdout).toContain("default command run as root");
    expect(JSON.parse(await readFile(copy("new.memory"), "utf8"))).toMatchObject({
      channels: [{ inForce: null, signed: [{ sequence: 5 }] }],
    });
    const verified = await nixosPull([
      ...["verify", evil(), "--public-key", operator.publicKey, ...against],
    ]);
    expect(verified.stderr).toContain("THAT RELEASE IS UNKNOWN");
    expect(verified.stdout).toContain("Compared with nothing");
    expect(verified.stdout).toContain("default command run as root");
  });

  test("is signed once somebody is known who signed the release before", async () => {
    const other = await createOperator("other-1");
    const draft = copy("genuine.json");
    const refused = nixosPull(["sign", draft, "--key", other.keyFile]);
    expect((await refused).exitCode).toBe(0);
    const [, key] = [await refresh(), operator.publicKey];
    const next = copy("next.json");
    const unsigned = ["--unsigned", next, "--memory", copy("third.memory")];
    expect((await refresh(...unsigned)).exitCode).toBe(0);
    const signNext = (...args: string[]): Promise<CommandOutput> =>
      nixosPull(["sign", next, "--key", other.keyFile, "--against", operator.mirror, ...args]);
    await expectRefused(signNext(), "RELEASE_FORKED");
    const signed = await signNext("--public-key", key);
    expect(signed.exitCode, signed.stderr).toBe(0);
    expect(signed.stdout).toContain("Compared with release 5");
    expect(signed.stderr).not.toContain("UNKNOWN");
  });
});

describe("several keys and commands", () => {
  let second: Operator;

  beforeEach(async () => {
    second = await createOperator("new-1");
  });

  const refreshWith = (...keys: string[]): Promise<CommandOutput> =>
    nixosPull([
      ...["publish", "--refresh", "--mirror", operator.mirror],
      ...["--public-key", operator.publicKey],
      ...keys.flatMap((key) => ["--key", key]),
    ]);

  test("no order of keys, rotation or link to a key forgets", async () => {
    expect((await refreshWith(operator.keyFile, second.keyFile)).exitCode).toBe(0);
    await setBack("release-1");
    await expectRefused(refreshWith(second.keyFile), "RELEASE_BEHIND");
    await rm(join(second.directory, "key.memory"));
    await expectRefused(refreshWith(second.keyFile, operator.keyFile), "RELEASE_BEHIND");
    const link = join(second.directory, "current.secret");
    await symlink(operator.keyFile, link);
    await expectRefused(refreshWith(link), "RELEASE_BEHIND");
  });

  test("memories that contradict each other stop a signature", async () => {
    const other = JSON.parse(await readFile(memoryFile(), "utf8"));
    other.channels[0].inForce.digest = "b".repeat(64);
    await writeFile(join(second.directory, "key.memory"), JSON.stringify(other));
    const shown = await expectRefused(
      refreshWith(second.keyFile, operator.keyFile),
      "RELEASE_FORKED",
    );
    expect(shown).toContain(memoryFile());
    expect(shown).toContain(join(second.directory, "key.memory"));
  });

  test("two that sign at the same time sign no two releases of one number", async () => {
    const [one, other] = [copy("one.json"), copy("other.json")];
    for (const [file, ...args] of [[one], [other, "--expires", "9d"]] as const) {
      const unsigned = ["--unsigned", file, "--memory", copy(`${args.length}.memory`), ...args];
      expect((await refresh(...unsigned)).exitCode).toBe(0);
      await rm(join(operator.mirror, ".publish/drafts"), { recursive: true });
    }
    const [started, go, program] = [copy("started"), copy("go"), copy("signer.mjs")];
    const script = `#!${process.execPath}
import { createPrivateKey, sign } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
const message = readFileSync(0);
writeFileSync(${JSON.stringify(started)}, "");
while (!existsSync(${JSON.stringify(go)})) await new Promise((done) => setTimeout(done, 20));
const seed = Buffer.from(readFileSync(${JSON.stringify(operator.keyFile)}, "utf8").split(":")[1], "base64").subarray(0, 32);
const prefix = Buffer.from("302e020100300506032b657004220420", "hex");
const key = createPrivateKey({ key: Buffer.concat([prefix, seed]), format: "der", type: "pkcs8" });
console.log(sign(null, message, key).toString("base64"));
`;
    await writeFile(program, script, { mode: 0o755 });
    const slow = nixosPull([
      ...["sign", one, "--memory", memoryFile()],
      ...["--signer", program, "--signer-key", operator.publicKey],
    ]);
    await vi.waitFor(() => access(started), { timeout: 30_000 });
    const quick = nixosPull(["sign", other, "--key", operator.keyFile]);
    await writeFile(go, "");
    const [first, later] = await Promise.all([slow, quick]);
    expect(first.exitCode, first.stderr).toBe(0);
    expect(later.stderr).toContain("nixos-pull: RELEASE_FORKED: ");
  });

  test("what another command remembered meanwhile is not lost", async () => {
    const memory = await SignerMemoryFile.open([memoryFile()]);
    await refresh();
    const digest = "c".repeat(64);
    const manifest = { ...(await inForce()), channel: "beta" };
    await memory.whileLocked(() => memory.rememberInForce({ manifest, digest }));
    expect(JSON.parse(await readFile(memoryFile(), "utf8"))).toMatchObject({
      channels: [
        { channel: "beta", inForce: { digest } },
        { channel: "stable", inForce: { sequence: 4 } },
      ],
    });
  });

  test("a memory that does not exist beside a mirror with releases is loud", async () => {
    const { stderr } = await refresh("--memory", copy("typo.memory"));
    expect(stderr).toContain(`${copy("typo.memory")} does not exist: NOTHING IS REMEMBERED`);
    expect((await refresh("--memory", copy("typo.memory"))).stderr).not.toContain("NOTHING IS");
  });

  test("fewer signatures than before are said, and whose", async () => {
    expect((await refreshWith(operator.keyFile, second.keyFile)).stderr).not.toContain("ONLY");
    const fewer = await run("release", "edit", "--now", "web1");
    expect(fewer.exitCode, fewer.stderr).toBe(0);
    expect(fewer.stderr).toContain("ONLY 1 SIGNED THIS RELEASE (test-1)");
    expect(fewer.stderr).toContain(`nixos-pull sign ${operator.mirror} --key FILE`);
    expect(fewer.stderr + fewer.stdout).toContain("~ signed by: new-1, test-1 → test-1");
  });
});

describe("a draft with odd numbers", () => {
  /** A draft that somebody changed before it is signed. */
  async function changed(change: (manifest: Manifest) => void): Promise<string> {
    const file = copy("odd.json");
    expect((await refresh("--unsigned", file, "--memory", copy("odd.memory"))).exitCode).toBe(0);
    const { payload } = parseEnvelope(await readFile(file));
    const manifest = parseManifest(Buffer.from(payload, "base64"));
    change(manifest);
    await writeFile(file, sealEnvelope(encodeManifest(manifest), []));
    return file;
  }

  const sign = (file: string): Promise<CommandOutput> =>
    nixosPull(["sign", file, "--key", operator.keyFile]);

  test("whose short list of earlier releases begins after the remembered one is refused", async () => {
    const file = await changed((manifest) => {
      manifest.sequence = 9;
      manifest.history = { since: { sequence: 8 }, releases: [] };
    });
    expect(await expectRefused(sign(file), "RELEASE_FORKED")).toContain("begins after that");
  });

  test("after which no number is left is refused, with the way out", async () => {
    const file = await changed((manifest) => void (manifest.sequence = Number.MAX_SAFE_INTEGER));
    expect(await expectRefused(sign(file), "PUBLISH_FAILED")).toContain("--new-epoch");
  });
});

test("a job that is run again with an older memory goes on with what the mirror has", async () => {
  const before = await readFile(memoryFile(), "utf8");
  await refresh();
  await writeFile(memoryFile(), before);
  const again = await refresh();
  expect(again.exitCode, again.stderr).toBe(0);
  expect((await inForce()).sequence).toBe(5);
  expect(JSON.parse(await readFile(memoryFile(), "utf8"))).toMatchObject({
    channels: [{ channel: "stable", inForce: { sequence: 5 }, signed: [] }],
  });
});

test("a damaged memory is not taken for an empty one", async () => {
  await writeFile(memoryFile(), "{");
  const { exitCode, stderr } = await refresh();
  expect(stderr).toContain("nixos-pull: STATE_CORRUPT: ");
  expect(exitCode).toBe(7);
});

test("release edit without a change signs nothing", async () => {
  const before = await readFile(manifestFile(), "utf8");
  const output = await run("release", "edit");
  expect(output.exitCode, output.stderr).toBe(0);
  expect(output.stdout).toBe(
    "Nothing changes: release 3 of stable stays in force, and nothing was signed.\n",
  );
  expect(await readFile(manifestFile(), "utf8")).toBe(before);
  const json = await run("release", "edit", "--json", "--now", "web1");
  expect(JSON.parse(json.stdout)).toMatchObject({ unchanged: false, sequence: 4 });
  const again = await run("release", "edit", "--json", "--now", "web1");
  expect(JSON.parse(again.stdout)).toMatchObject({ unchanged: true, sequence: 4, hosts: [] });
  // An expiry that is asked for is a change.
  const shorter = await run("release", "edit", "--json", "--expires", "1d");
  const { createdAt, expiresAt, ...changed } = JSON.parse(shorter.stdout);
  expect(changed).toMatchObject({ unchanged: false, sequence: 5 });
  expect(Date.parse(expiresAt) - Date.parse(createdAt)).toBe(86_400_000);
});
