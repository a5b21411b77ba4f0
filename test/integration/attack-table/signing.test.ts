import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { Envelope } from "../../../agent/core/formats/envelope.ts";
import { inAttackWorld, type AttackWorld, type KeyFiles } from "../../support/attack-world.ts";

let world: AttackWorld;
let other: KeyFiles;
let third: KeyFiles;

inAttackWorld(async (it) => {
  world = it;
  other = await world.newKey("fleet-2");
  third = await world.newKey("fleet-3");
});

/** Settings of a host that wants two of three keys under a release. */
function twoOfThree(): Record<string, unknown> {
  return { publicKeys: [world.key, other, third].map((key) => key.publicKey), threshold: 2 };
}

describe("signing at several places", () => {
  test("a second signature is added to the release in force, in place", async () => {
    world.configure(twoOfThree());
    await world.refuses("SIGNATURE_THRESHOLD");
    const before = await world.envelope();
    const signed = await world.command(["sign", world.mirror, "--key", other.secretFile]);
    expect(signed.exitCode, signed.stderr).toBe(0);
    expect(signed.stdout).toContain("with fleet-2; signatures now: fleet-1, fleet-2");
    expect((await world.envelope()).payload).toBe(before.payload);
    const { value } = await world.apply(["check"]);
    expect(value).toMatchObject({ decision: "update", error: null });
  });

  test("signing twice with one key adds nothing", async () => {
    const before = await readFile(world.manifestFile, "utf8");
    const signed = await world.command(["sign", world.mirror, "--key", world.key.secretFile]);
    expect(signed.exitCode).toBe(0);
    expect(await readFile(world.manifestFile, "utf8")).toBe(before);
  });

  test("a draft is signed elsewhere and put into force only with enough signatures", async () => {
    const draft = join(world.directory, "draft.json");
    const before = await readFile(world.manifestFile, "utf8");
    const keys = ["--store-key", world.key.secretFile, "--public-key", world.key.publicKey];
    await world.publish(["--host", `web1=${world.second}`, "--draft", draft, ...keys], []);
    expect(await readFile(world.manifestFile, "utf8")).toBe(before);

    const putIntoForce = (): ReturnType<AttackWorld["command"]> => {
      const trusted = [world.key, other].flatMap((key) => ["--public-key", key.publicKey]);
      return world.command([
        ...["publish", "--mirror", world.mirror, "--from-draft", draft],
        ...[...trusted, "--threshold", "2"],
      ]);
    };
    for (const key of [other, world.key]) {
      // One signature too few: the release in force stays.
      const early = await putIntoForce();
      expect(early.stderr).toContain("SIGNATURE_THRESHOLD");
      expect(await readFile(world.manifestFile, "utf8")).toBe(before);
      const signed = await world.command(["sign", draft, "--key", key.secretFile]);
      expect(signed.exitCode, signed.stderr).toBe(0);
    }
    const done = await putIntoForce();
    expect(done.exitCode, done.stderr).toBe(0);
    world.configure(twoOfThree());
    const { value } = await world.apply(["check"]);
    expect(value).toMatchObject({ decision: "update", release: { sequence: 3 } });
  });

  test("publish --unsigned signs store paths and leaves the release to others", async () => {
    const draft = join(world.directory, "unsigned.json");
    const before = await readFile(world.manifestFile, "utf8");
    const output = await world.publish(["--host", `web1=${world.second}`, "--unsigned", draft]);
    expect(output.stdout).toContain("Drafted release 3 of stable, signed by nobody yet");
    expect(JSON.parse(await readFile(draft, "utf8"))).toMatchObject({ signatures: [] });
    expect(await readFile(world.manifestFile, "utf8")).toBe(before);
    // Put on the mirror by mistake, or by a thief, it is refused.
    await world.forge(() => readFile(draft, "utf8"));
    await world.refuses("SIGNATURE_THRESHOLD");
    await writeFile(world.manifestFile, before);
    await world.command(["sign", draft, "--key", other.secretFile]);
    const trusted = ["--public-key", other.publicKey];
    const verified = await world.command(["verify", draft, ...trusted]);
    expect(verified.stdout).toContain("Release 3 of stable, signed by fleet-2");
    const done = await world.command([
      ...["publish", "--mirror", world.mirror, "--from-draft", draft, ...trusted],
    ]);
    expect(done.exitCode, done.stderr).toBe(0);
    world.configure({ publicKeys: [other.publicKey], storeKeys: [world.key.publicKey] });
    expect((await world.apply(["check"])).value).toMatchObject({ decision: "update", error: null });
  });

  test("a signer is told of a new epoch and of the digest, and no name rewrites the terminal", async () => {
    const draft = join(world.directory, "epoch.json");
    await world.publish(["--refresh", "--new-epoch", "key stolen", "--unsigned", draft]);
    const signed = await world.command(["sign", draft, "--key", other.secretFile]);
    expect(signed.stdout).toContain("Epoch 1, begun because: key stolen");
    expect(signed.stdout).toMatch(/^Digest [0-9a-f]{64}$/m);
    const envelope = JSON.parse(await readFile(draft, "utf8")) as Envelope;
    const evil = [{ ...envelope.signatures[0], keyid: "\u001b[2Jall is well" }];
    await writeFile(draft, JSON.stringify({ ...envelope, signatures: evil }));
    const refused = await world.command(["sign", draft, "--key", third.secretFile]);
    expect(refused.stderr).toContain("ENVELOPE_INVALID");
    expect(refused.stdout + refused.stderr).not.toContain("\u001b");
  });

  test("a draft whose archive is not on the mirror is not put into force", async () => {
    const draft = join(world.directory, "draft.json");
    const { file } = await world.archive();
    await writeFile(draft, await readFile(world.manifestFile));
    await writeFile(file, "something else");
    const trusted = ["--public-key", world.key.publicKey];
    const output = await world.command([
      ...["publish", "--mirror", world.mirror, "--from-draft", draft, ...trusted],
    ]);
    expect(output.stderr).toContain("PUBLISH_FAILED: web1: expected an archive of ");
  });

  test("what is no release is not signed", async () => {
    const file = join(world.directory, "draft.json");
    const payload = Buffer.from('{"formatVersion":1}').toString("base64");
    for (const [envelope, code] of [
      ["<html>", "ENVELOPE_INVALID"],
      [{ payloadType: "text/plain", payload, signatures: [] }, "PAYLOAD_TYPE_WRONG"],
      [{ ...(await world.envelope()), payload }, "MANIFEST_INVALID"],
    ] as const) {
      await writeFile(file, typeof envelope === "string" ? envelope : JSON.stringify(envelope));
      const output = await world.command(["sign", file, "--key", other.secretFile]);
      expect(output.stderr).toContain(code);
    }
  });
});

describe("external signers", () => {
  /** A program that signs what it reads with openssl, as one for a token would. */
  async function signer(secretFile: string, body?: string): Promise<string> {
    const program = join(world.directory, "signer");
    const script = `#!${process.execPath}
const { createPrivateKey, sign } = require("node:crypto");
const { readFileSync } = require("node:fs");
const seed = Buffer.from(readFileSync(process.argv[2], "utf8").split(":")[1], "base64").subarray(0, 32);
const key = createPrivateKey({
  key: Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]),
  format: "der",
  type: "pkcs8",
});
console.log(sign(null, readFileSync(0), key).toString("base64"));
`;
    await writeFile(program, body ?? script, { mode: 0o755 });
    return JSON.stringify([program, secretFile]);
  }

  test("a program's signature counts as that of its key", async () => {
    world.configure(twoOfThree());
    const command = await signer(other.secretFile);
    const args = ["--signer", command, "--signer-key", other.publicKey];
    const signed = await world.command(["sign", world.mirror, ...args]);
    expect(signed.exitCode, signed.stderr).toBe(0);
    expect((await world.apply(["check"])).value.decision).toBe("update");
  });

  test("what a program prints is verified before it is written", async () => {
    const before = await readFile(world.manifestFile, "utf8");
    for (const command of [
      await signer(third.secretFile),
      await signer("", "#!/bin/sh\necho not a signature\n"),
      await signer("", "#!/bin/sh\necho no token >&2; exit 3\n"),
    ]) {
      const args = ["--signer", command, "--signer-key", other.publicKey];
      const signed = await world.command(["sign", world.mirror, ...args]);
      expect(signed.stderr).toContain("SIGNER_FAILED");
      expect(signed.exitCode).toBe(10);
      expect(await readFile(world.manifestFile, "utf8")).toBe(before);
    }
  });
});

describe("rotation and revocation", () => {
  test("a host that was away for the whole overlap follows a release signed by both keys", async () => {
    // The fleet moved to fleet-2; releases are signed by both until everybody was seen.
    await world.publish(
      ["--host", `web1=${world.second}`, "--public-key", world.key.publicKey],
      [other.secretFile, world.key.secretFile],
    );
    const away = await world.apply(["check"]);
    expect(away.value).toMatchObject({ decision: "update", error: null });
    world.configure({ publicKeys: [other.publicKey], revokedKeys: [world.key.publicKey] });
    const moved = await world.apply(["check"]);
    expect(moved.value).toMatchObject({ decision: "update", error: null });
  });

  test("after the overlap the old key's hosts refuse, and say why", async () => {
    await world.publish(
      ["--host", `web1=${world.second}`, "--public-key", world.key.publicKey],
      [other.secretFile],
    );
    await world.refuses("SIGNATURE_THRESHOLD");
  });

  test("a revoked key wins over publicKeys at once", async () => {
    world.configure({ publicKeys: [world.key.publicKey, other.publicKey] });
    expect((await world.apply(["check"])).value.decision).toBe("update");
    world.configure({ revokedKeys: [world.key.publicKey] });
    await world.refuses("KEY_REVOKED");
  });

  test("a revoked key does not come back under another name", async () => {
    const renamed = world.key.publicKey.replace("fleet-1:", "innocent-1:");
    world.configure({
      publicKeys: [renamed, other.publicKey],
      revokedKeys: [world.key.publicKey],
    });
    await world.refuses("KEY_REVOKED");
  });

  test("store paths by a revoked key are refused although the release is signed well", async () => {
    await world.publish(
      ["--host", `web1=${world.second}`, "--store-key", world.key.secretFile],
      [other.secretFile, world.key.secretFile],
    );
    world.configure({
      publicKeys: [other.publicKey],
      storeKeys: [world.key.publicKey, third.publicKey],
    });
    expect((await world.apply(["check"])).value.decision).toBe("update");
    world.configure({ revokedKeys: [world.key.publicKey] });
    await world.refuses("PATH_SIGNATURE");
  });

  test("separate keys: the release key alone cannot bring in store paths", async () => {
    world.configure({ storeKeys: [third.publicKey] });
    await world.refuses("PATH_SIGNATURE");
  });

  test("separate keys: the release key alone brings in no commands, not even for systems that are well signed", async () => {
    const trace = join(world.directory, "commanded");
    await world.resign((manifest) => {
      manifest.defaults.activation.checks = [
        { kind: "command", name: "ok", command: ["/bin/sh", "-c", `>${trace}`], timeout: "10s" },
      ];
    });
    world.configure({ storeKeys: [world.key.publicKey, third.publicKey] });
    await world.refuses("RELEASE_COMMANDS");
    const ended = await readFile(trace).catch((error: unknown) => error);
    expect(ended).toMatchObject({ code: "ENOENT" });
    world.configure({ health: { releaseCommands: true } });
    expect((await world.apply(["check"])).value).toMatchObject({ decision: "update", error: null });
  });

  test("a configuration that revokes its last key is refused as a whole", async () => {
    world.configure({ revokedKeys: [world.key.publicKey] });
    await world.refuses("CONFIG_INVALID");
  });
});
