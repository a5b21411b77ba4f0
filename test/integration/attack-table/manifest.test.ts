import { cp, mkdir, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { hashMachineId } from "../../../agent/core/machine-id.ts";
import type { HostEntry, Manifest } from "../../../agent/core/formats/manifest.ts";
import { buildAgent } from "../../../scripts/build.mjs";
import {
  attacks,
  inAttackWorld,
  sha256,
  type AttackWorld,
  type KeyFiles,
} from "../../support/attack-world.ts";

let world: AttackWorld;
let stranger: KeyFiles;

inAttackWorld(async (it) => {
  world = it;
  stranger = await world.newKey("stranger-1");
});
const here = (): AttackWorld => world;

function inDays(days: number): string {
  return new Date(Date.now() + days * 86_400_000).toISOString();
}

function web1(manifest: Manifest): HostEntry {
  const entry = manifest.hosts["web1"];
  if (!entry) throw new Error("no web1");
  return entry;
}

/** The payload with one text replaced, and signatures of what it was. */
function forgePayload(from: string, to: string): Promise<void> {
  return world.forge((envelope) => {
    const payload = Buffer.from(envelope.payload, "base64").toString();
    expect(payload).toContain(from);
    envelope.payload = Buffer.from(payload.replaceAll(from, to)).toString("base64");
  });
}

attacks("arbitrary installation: signatures", here, [
  {
    name: "no signature",
    code: "SIGNATURE_THRESHOLD",
    arrange: () => world.forge((it) => ({ ...it, signatures: [] })),
  },
  {
    name: "signed by a stranger",
    code: "SIGNATURE_THRESHOLD",
    arrange: () => world.resign(() => undefined, [stranger]),
  },
  {
    name: "signed by a stranger under a trusted name",
    code: "SIGNATURE_THRESHOLD",
    arrange: async () => {
      await world.resign(() => undefined, [stranger]);
      await world.forge((it) => {
        for (const signature of it.signatures) signature.keyid = "fleet-1";
      });
    },
  },
  {
    name: "a system replaced after signing",
    code: "SIGNATURE_THRESHOLD",
    arrange: () => forgePayload("nixos-system-web1-2", "nixos-system-evil-2"),
  },
  {
    name: "a signature with a flipped bit",
    code: "SIGNATURE_THRESHOLD",
    arrange: () =>
      world.forge((it) => {
        const sig = Buffer.from(it.signatures[0]?.sig ?? "", "base64");
        sig[10] = (sig[10] ?? 0) ^ 1;
        return { ...it, signatures: [{ sig: sig.toString("base64") }] };
      }),
  },
  {
    name: "an empty signature",
    code: "SIGNATURE_THRESHOLD",
    arrange: () => world.forge((it) => ({ ...it, signatures: [{ sig: "" }] })),
  },
  {
    name: "a signature of another release",
    code: "SIGNATURE_THRESHOLD",
    arrange: async () => {
      const { signatures } = await world.envelope();
      await world.resign((it) => void (it.sequence = 9), [stranger]);
      await world.forge((it) => ({ ...it, signatures }));
    },
  },
  {
    name: "k-1 signatures of k",
    code: "SIGNATURE_THRESHOLD",
    arrange: () => {
      world.configure({ publicKeys: [world.key.publicKey, stranger.publicKey], threshold: 2 });
    },
  },
  {
    name: "one key signing twice for two",
    code: "SIGNATURE_THRESHOLD",
    arrange: async () => {
      world.configure({ publicKeys: [world.key.publicKey, stranger.publicKey], threshold: 2 });
      await world.forge((it) => ({ ...it, signatures: [...it.signatures, ...it.signatures] }));
    },
  },
  {
    name: "one key trusted under two names for two",
    code: "CONFIG_INVALID",
    arrange: () => {
      const twin = world.key.publicKey.replace("fleet-1", "fleet-9");
      world.configure({ publicKeys: [world.key.publicKey, twin], threshold: 2 });
    },
  },
  {
    name: "the payload signed as another type",
    code: "PAYLOAD_TYPE_WRONG",
    arrange: () => world.forge((it) => ({ ...it, payloadType: "application/json" })),
  },
  {
    name: "more signatures than are looked at",
    code: "ENVELOPE_INVALID",
    arrange: () =>
      world.forge((it) => ({ ...it, signatures: Array(33).fill(it.signatures[0]) as unknown })),
  },
]);

attacks("malformed envelopes and manifests", here, [
  {
    name: "an empty file",
    code: "ENVELOPE_INVALID",
    arrange: () => world.forge(() => " ".trim() + "\n"),
  },
  {
    name: "a login page",
    code: "ENVELOPE_INVALID",
    arrange: () => world.forge(() => "<!doctype html><title>Please log in</title>"),
  },
  {
    name: "half an envelope",
    code: "ENVELOPE_INVALID",
    arrange: async () => {
      const text = await readFile(world.manifestFile, "utf8");
      await writeFile(world.manifestFile, text.slice(0, text.length / 2));
    },
  },
  {
    name: "an unknown field beside the payload",
    code: "ENVELOPE_INVALID",
    arrange: () => world.forge((it) => ({ ...it, trusted: true })),
  },
  {
    name: "a signer's name that would rewrite a terminal",
    code: "ENVELOPE_INVALID",
    arrange: () =>
      world.forge((it) => {
        for (const signature of it.signatures) signature.keyid = "\u001b[2Jall is well";
      }),
  },
  {
    name: "JSON nested a million deep",
    code: "ENVELOPE_INVALID",
    arrange: () => world.forge(() => "[".repeat(1_000_000)),
  },
  {
    name: "a link on the stick to a file of this host",
    code: "MIRROR_STATUS",
    arrange: async () => {
      const secret = join(world.directory, "shadow");
      await writeFile(secret, "root:$6$hash-that-nobody-may-see:20000::::::\n");
      await rm(world.manifestFile);
      await symlink(secret, world.manifestFile);
    },
  },
  {
    name: "a link to another file of the stick",
    code: "MIRROR_STATUS",
    arrange: async () => {
      const { file } = await world.archive();
      await cp(file, join(world.mirror, "elsewhere.tar"));
      await rm(file);
      await symlink("../elsewhere.tar", file);
    },
  },
  {
    name: "a link in the middle of a path on the stick",
    code: "MIRROR_STATUS",
    arrange: async () => {
      await cp(join(world.mirror, "channels/stable"), join(world.mirror, "elsewhere"), {
        recursive: true,
      });
      await rm(join(world.mirror, "channels/stable"), { recursive: true });
      await symlink("../elsewhere", join(world.mirror, "channels/stable"));
    },
  },
  {
    name: "longer than the limit",
    code: "MIRROR_OVERSIZE",
    arrange: async () => {
      world.configure({ limits: { manifestBytes: 10_000 } });
      await writeFile(world.manifestFile, Buffer.alloc(10_001, " "));
    },
  },
  {
    name: "a signed text that is no JSON",
    code: "MANIFEST_INVALID",
    arrange: () => world.resign(() => "yes"),
  },
  {
    name: "a signed requirement that this version lacks",
    code: "AGENT_TOO_OLD",
    arrange: () => world.resign((it) => ({ ...it, requires: ["post-install"] })),
  },
  {
    name: "a signed negative sequence",
    code: "MANIFEST_INVALID",
    arrange: () => world.resign((it) => void (it.sequence = -1)),
  },
  {
    name: "a signed sequence that no number holds",
    code: "MANIFEST_INVALID",
    arrange: () => world.resign((it) => void (it.sequence = 2 ** 60)),
  },
  {
    name: "a toplevel outside the store",
    code: "MANIFEST_INVALID",
    arrange: () => world.resign((it) => void (web1(it).toplevel = "/etc/passwd")),
  },
  {
    name: "a toplevel with a way out of the store",
    code: "MANIFEST_INVALID",
    arrange: () => world.resign((it) => void (web1(it).toplevel = `${world.second}/../../../etc`)),
  },
  {
    name: "an archive name with a way out of the mirror",
    code: "MANIFEST_INVALID",
    arrange: () => world.resign((it) => void (web1(it).archive.sha256 = "../../../etc/shadow")),
  },
  {
    name: "a format of the future",
    code: "FORMAT_UNSUPPORTED",
    arrange: () => world.resign((it) => ({ ...it, formatVersion: 2 })),
  },
  {
    name: "hosts under __proto__ only",
    code: "HOST_NOT_IN_RELEASE",
    arrange: () => {
      world.configure({ hostname: "constructor" });
    },
  },
]);

attacks("rollback, replay, fast-forward, mix-and-match", here, [
  {
    name: "the release before, genuinely signed",
    code: "SEQUENCE_REPLAYED",
    arrange: async () => {
      await world.apply(["check"]);
      const old = await world.envelope();
      await world.resign((it) => void (it.sequence = 7));
      await rememberCurrent();
      await world.forge(() => old);
    },
  },
  {
    name: "another release under an accepted number",
    code: "SEQUENCE_CONFLICT",
    arrange: async () => {
      await rememberCurrent();
      await world.resign((it) => void (it.expiresAt = inDays(300)));
    },
  },
  {
    name: "a later release that comes after another one of the accepted number",
    code: "SEQUENCE_FORKED",
    arrange: async () => {
      await world.apply(["check"]);
      await world.resign((it) => {
        it.sequence = 7;
        it.history.releases = [{ sequence: 1, digest: "b".repeat(64) }];
      });
    },
  },
  {
    name: "a later release that comes after none of the accepted number",
    code: "SEQUENCE_FORKED",
    arrange: async () => {
      await world.resign((it) => {
        it.sequence = 7;
        it.history.releases = [];
      });
    },
  },
  {
    name: "an epoch back, with a higher sequence",
    code: "SEQUENCE_REPLAYED",
    arrange: async () => {
      const before = await world.envelope();
      await world.resign((it) => void (it.epoch = { number: 3, reason: "recovery" }));
      await rememberCurrent();
      await world.forge(() => before);
      await world.resign((it) => {
        it.sequence = 1_000_000;
        it.epoch = { number: 2, reason: "recovery" };
      });
    },
  },
  {
    name: "the epoch left out again",
    code: "SEQUENCE_REPLAYED",
    arrange: async () => {
      const before = await world.envelope();
      await world.resign((it) => void (it.epoch = { number: 1, reason: "recovery" }));
      await rememberCurrent();
      await world.forge(() => before);
      await world.resign((it) => void (it.sequence = Number.MAX_SAFE_INTEGER));
    },
  },
  {
    name: "an epoch that uses all others up",
    code: "EPOCH_IMPLAUSIBLE",
    arrange: () =>
      world.resign((it) => void (it.epoch = { number: Number.MAX_SAFE_INTEGER, reason: "x" })),
  },
  {
    name: "a new epoch by a stranger",
    code: "SIGNATURE_THRESHOLD",
    arrange: () =>
      world.resign((it) => void (it.epoch = { number: 1, reason: "mine now" }), [stranger]),
  },
  {
    name: "a new epoch without a reason",
    code: "MANIFEST_INVALID",
    arrange: () => world.resign((it) => void (it.epoch = { number: 1, reason: "" })),
  },
  {
    name: "replay to a host whose state file was torn",
    code: "SEQUENCE_REPLAYED",
    arrange: async () => {
      const old = await world.envelope();
      await world.resign((it) => void (it.sequence = 7));
      await rememberCurrent();
      await writeFile(join(world.state, "state.json"), '{"sha256": "torn');
      await world.forge(() => old);
    },
  },
  {
    name: "replay to a host that lost both state files",
    code: "SEQUENCE_REPLAYED",
    arrange: async () => {
      const old = await world.envelope();
      await world.resign((it) => void (it.sequence = 7));
      await rememberCurrent();
      await rm(join(world.state, "state.json"));
      await rm(join(world.state, "trust.json"));
      await rm(world.trustElsewhere);
      await world.forge(() => old);
    },
  },
  {
    name: "replay to a host that lost the disk of its state directory",
    code: "SEQUENCE_REPLAYED",
    arrange: async () => {
      const old = await world.envelope();
      await world.resign((it) => void (it.sequence = 7));
      await rememberCurrent();
      await rm(world.state, { recursive: true });
      await world.forge(() => old);
    },
  },
  {
    name: "a host of which everything readable is torn",
    code: "STATE_CORRUPT",
    arrange: async () => {
      for (const name of ["state.json", "trust.json", "history.jsonl"]) {
        await truncate(join(world.state, name), 40);
      }
      await truncate(world.trustElsewhere, 40);
    },
  },
  {
    name: "a host of which nothing readable is left",
    code: "STATE_LOST",
    arrange: async () => {
      await rm(join(world.state, "state.json"));
      await rm(join(world.state, "trust.json"));
      await rm(world.trustElsewhere);
      await writeFile(join(world.state, "history.jsonl"), "{}\n");
    },
  },
  {
    name: "the epoch's memory cut out of the trust file by hand",
    code: "SEQUENCE_REPLAYED",
    arrange: async () => {
      const before = await world.envelope();
      await world.resign((it) => void (it.epoch = { number: 1, reason: "recovery" }));
      await rememberCurrent();
      const files = ["state.json", "trust.json"].map((name) => join(world.state, name));
      for (const file of [...files, world.trustElsewhere]) {
        await writeFile(file, (await readFile(file, "utf8")).replace('"epoch": 1,', ""));
      }
      await world.forge(() => before);
    },
  },
]);

attacks("freeze and clock", here, [
  {
    name: "a release that nobody accepted in its time",
    code: "MANIFEST_EXPIRED",
    arrange: () => world.resign((it) => void (it.expiresAt = inDays(-1))),
  },
  {
    name: "the accepted release, held until it expired",
    code: "MIRROR_STALE",
    arrange: async () => {
      const expiresAt = Date.now() + 10_000;
      await world.resign((it) => void (it.expiresAt = new Date(expiresAt).toISOString()));
      await rememberCurrent();
      await new Promise((resolve) => setTimeout(resolve, expiresAt - Date.now() + 100));
    },
  },
  {
    name: "a release from the future",
    code: "CLOCK_IMPLAUSIBLE",
    arrange: () => world.resign((it) => void (it.createdAt = inDays(2))),
  },
  {
    name: "a clock behind the last accepted release",
    code: "CLOCK_BEHIND",
    arrange: async () => {
      await world.resign((it) => void (it.createdAt = inDays(30)));
      world.configure({ clock: "ignore" });
      await rememberCurrent();
      world.configure({ clock: "strict" });
    },
  },
  {
    name: "a clock before the agent itself was built",
    code: "CLOCK_BEHIND",
    arrange: async () => {
      process.env["SOURCE_DATE_EPOCH"] = String(Math.floor(Date.parse(inDays(30)) / 1000));
      try {
        world.useBundle(await buildAgent(join(world.directory, "later.cjs")));
      } finally {
        delete process.env["SOURCE_DATE_EPOCH"];
      }
    },
  },
  {
    name: "a replay while the clock is ignored",
    code: "SEQUENCE_REPLAYED",
    arrange: async () => {
      world.configure({ clock: "ignore" });
      const old = await world.envelope();
      await world.resign((it) => void (it.sequence = 7));
      await rememberCurrent();
      await world.forge(() => old);
    },
  },
]);

attacks("misdirection", here, [
  {
    name: "another channel's release",
    code: "CHANNEL_MISMATCH",
    arrange: () => world.resign((it) => void (it.channel = "canary")),
  },
  {
    name: "a release without this host",
    code: "HOST_NOT_IN_RELEASE",
    arrange: () =>
      world.resign((it) => ({
        ...it,
        hosts: Object.fromEntries(Object.entries(it.hosts).filter(([name]) => name !== "web1")),
      })),
  },
  {
    name: "another host's archive under this host's name",
    code: "INDEX_INVALID",
    arrange: () =>
      world.resign((it) => {
        web1(it).archive = it.hosts["db1"]?.archive ?? web1(it).archive;
      }),
  },
  {
    name: "an entry bound to another machine",
    code: "MACHINE_MISMATCH",
    arrange: async () => {
      await machineId("0123456789abcdef0123456789abcdef");
      await world.resign((it) => void (web1(it).machineId = sha256(Buffer.from("other"))));
    },
  },
  {
    name: "an entry bound to a machine, on a host without identity",
    code: "MACHINE_MISMATCH",
    arrange: async () => {
      await machineId("");
      await world.resign((it) => void (web1(it).machineId = sha256(Buffer.from("other"))));
    },
  },
]);

/** Gives the host a machine-id file of its own. */
async function machineId(text: string): Promise<void> {
  const file = join(world.directory, "machine-id");
  await writeFile(file, `${text}\n`);
  world.configure({ paths: { machineId: file } });
}

/**
 * Lets the host accept the manifest on the mirror without following it: for a moment it
 * names a system that the host already is.
 */
async function rememberCurrent(): Promise<void> {
  await cp(world.manifestFile, join(world.directory, "accepted.json"));
  // An archive that cannot be had: accepted and remembered, but not installed.
  const { file } = await world.archive();
  await mkdir(join(world.directory, "aside"), { recursive: true });
  await cp(file, join(world.directory, "aside/archive.tar"));
  await rm(file);
  const outcome = await world.apply();
  expect(outcome.value.error?.code, outcome.stderr).toBe("MIRROR_NOT_FOUND");
  await cp(join(world.directory, "aside/archive.tar"), file);
}

describe("memory that is damaged", () => {
  test("is told by status and report, mended by the next poll, and kept in the history", async () => {
    await rm(join(world.state, "trust.json"));
    await truncate(join(world.state, "state.json"), 40);
    await world.forge((it) => ({ ...it, signatures: [] }));
    const before = await world.host(["status"]);
    expect(before.stdout).toMatch(/^ALARM +STATE_CORRUPT: state: .*state.json is not JSON/m);
    expect(before.stdout).toMatch(/^ALARM +STATE_CORRUPT: state: the record was lost/m);
    expect(before.stdout).toMatch(/^accepted +up to 1$/m);
    const { stderr } = await world.refuses("SIGNATURE_THRESHOLD");
    expect(stderr).toContain("the record was lost");
    expect((await world.host(["status"])).stdout).not.toContain("ALARM");
    expect((await world.host(["history"])).stdout).toContain("the state was mended");
    expect(await readFile(join(world.state, "trust.json"), "utf8")).toContain('"sequence": 1');
  });

  test("starts anew only on a person's word, and says so until then", async () => {
    const files = ["state.json", "trust.json"].map((name) => join(world.state, name));
    for (const file of [...files, world.trustElsewhere]) await writeFile(file, "#");
    await writeFile(join(world.state, "history.jsonl"), "#");
    await world.refuses("STATE_CORRUPT");
    await world.refuses("STATE_CORRUPT", ["check"]);
    expect((await world.host(["status"])).stdout).toContain("--accept-state-loss");
    await world.forge((it) => ({ ...it, signatures: [] }));
    await world.refuses("SIGNATURE_THRESHOLD", ["apply", "--accept-state-loss"]);
    await world.refuses("SIGNATURE_THRESHOLD");
  });
});

describe("what must keep working", () => {
  test("status tells the epoch", async () => {
    await world.publish(["--refresh", "--new-epoch", "numbers by mistake"]);
    await rememberCurrent();
    const { stdout } = await world.host(["status"]);
    expect(stdout).toMatch(/^accepted +up to 1 of epoch 1$/m);
    expect(stdout).toMatch(/^mirror +file:.*: release 1 of epoch 1; /m);
  });

  test("a hosts file binds entries to machines, and a refresh keeps them bound", async () => {
    const id = "0123456789abcdef0123456789abcdef";
    const hosts = join(world.directory, "hosts.json");
    await writeFile(
      hosts,
      JSON.stringify({ web1: { system: world.second, machineId: hashMachineId(id) } }),
    );
    await world.publish(["--hosts", hosts]);
    await world.publish(["--refresh"]);
    await world.publish(["--keep-hosts", "--host", `db1=${world.first}`]);
    await machineId(id);
    const shown = (await world.apply(["status"])).value["machineId"];
    expect(shown).toBe(hashMachineId(id));
    expect((await world.apply(["check"])).value).toMatchObject({ decision: "update", error: null });
    await machineId("fedcba9876543210fedcba9876543210");
    await world.refuses("MACHINE_MISMATCH");
  });

  test("an entry bound to this machine is followed", async () => {
    const id = "0123456789abcdef0123456789abcdef";
    await machineId(id);
    await world.resign((it) => void (web1(it).machineId = hashMachineId(id) ?? ""));
    expect((await world.apply(["check"])).value).toMatchObject({ decision: "update", error: null });
  });

  test("a new epoch brings back a host that accepted a number too high", async () => {
    const before = await world.envelope();
    await world.resign((it) => void (it.sequence = Number.MAX_SAFE_INTEGER));
    await rememberCurrent();
    await world.forge(() => before);
    await world.refuses("SEQUENCE_REPLAYED");
    await world.publish(["--refresh", "--new-epoch", "sequence driven to its end by mistake"]);
    const { value } = await world.apply(["check"]);
    expect(value).toMatchObject({ decision: "update", release: { sequence: 1 } });
  });

  test("an expired release is followed where the clock is ignored", async () => {
    await world.resign((it) => void (it.expiresAt = inDays(-1)));
    world.configure({ clock: "ignore" });
    expect((await world.apply(["check"])).value.decision).toBe("update");
  });

  test("a refresh renews the expiry and changes nothing else on a host", async () => {
    await world.publish(["--host", `web1=${world.first}`]);
    expect((await world.apply()).value.decision).toBe("adopt");
    const before = await world.manifest();
    await world.publish(["--refresh", "--expires", "200d"]);
    const after = await world.manifest();
    expect(after.sequence).toBe(before.sequence + 1);
    expect(Date.parse(after.expiresAt)).toBeGreaterThan(Date.parse(before.expiresAt));
    expect(after.hosts).toEqual(before.hosts);
    expect((await world.apply()).value).toMatchObject({ decision: "adopt", updated: false });
    expect((await world.apply()).value).toMatchObject({ decision: "active", updated: false });
    await world.expectUntouched();
  });

  test("the state that a version without epochs wrote is still read", async () => {
    expect(await readFile(join(world.state, "trust.json"), "utf8")).not.toContain("epoch");
    expect((await world.apply(["check"])).value.decision).toBe("update");
  });
});
