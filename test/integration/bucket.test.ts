import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { bucketAt } from "../../agent/cli/options/mirror-place.ts";
import { parseMirrorAddress } from "../../agent/core/formats/mirror-address.ts";
import { parseSettings, trustPolicyOf } from "../../agent/core/settings.ts";
import { systemClock } from "../../agent/effects/host/clock.ts";
import { DirectoryMirror } from "../../agent/effects/mirror/directory-mirror.ts";
import { uploadMirror } from "../../agent/operator/mirror/upload-mirror.ts";
import { breakingLink } from "../support/breaking-link.ts";
import { hasBucketServer, startBucketServer, type BucketServer } from "../support/bucket-server.ts";
import { buildSystem } from "../support/closure.ts";
import { rejectionOf } from "../support/failure.ts";
import { nixosPull } from "../support/nixos-pull.ts";
import { createHost, createOperator, type Operator } from "../support/sandbox.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const ROW = { parts: 4, partBytes: 300_000 };

/** A file with these keys, as settings name it. */
async function keyFile(profile: string): Promise<string> {
  const file = join(await temporaryDirectory(), "keys");
  await writeFile(file, profile, { mode: 0o600 });
  return file;
}

/** A host of one mirror in a bucket, which has the server's keys. */
async function hostOf(
  { publicKey }: Operator,
  server: BucketServer,
  mirror = server.address("fleet"),
) {
  const file = await keyFile(server.profile);
  return createHost({
    ...{ mirrors: [mirror], publicKeys: [publicKey] },
    credentials: { [mirror]: { type: "s3", file } },
  });
}

describe.skipIf(!hasBucketServer)("a mirror in a private bucket", () => {
  test("is followed: the release, conditional polls, and its successor over a link that breaks", async () => {
    const server = await startBucketServer();
    const operator = await createOperator();
    const [first, second] = [
      await buildSystem({ ...ROW, generation: "1" }),
      await buildSystem({ ...ROW, generation: "2", partBytes: 400_000 }),
    ];
    await operator.publish({ web1: first });
    await server.fill(operator.mirror, "fleet");
    const link = await breakingLink(server.endpoint);
    const host = await hostOf(operator, server, server.address("fleet", link.url));
    const applied = await host.run("apply");
    expect(applied.exitCode, applied.stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(first);
    // Not modified.
    expect((await host.json("check")).value).toMatchObject({ decision: "active" });

    await operator.publish({ web1: second });
    await server.fill(operator.mirror, "fleet");
    link.faults = { bytes: () => 150_000 };
    const updated = await host.run("apply");
    expect(updated.exitCode, updated.stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(second);
    expect(link.broken).toBeGreaterThan(1);

    // No secret, and no signature, is in what the host wrote or printed.
    const told = [applied, updated].map(({ stdout, stderr }) => stdout + stderr);
    const names = await readdir(host.state, { recursive: true, withFileTypes: true });
    for (const entry of names.filter((it) => it.isFile())) {
      told.push(await readFile(join(entry.parentPath, entry.name), "latin1"));
    }
    told.push((await host.run("status", "--json")).stdout, (await host.run("history")).stdout);
    expect(told.join("\n")).not.toContain(server.secretAccessKey);
    expect(told.join("\n")).not.toMatch(/Signature=|X-Amz-/i);
  });

  test("refuses a wrong secret, an unknown key and nobody, each with a reason", async () => {
    const server = await startBucketServer();
    const operator = await createOperator();
    await operator.publish({ web1: await buildSystem({ ...ROW, generation: "1" }) });
    await server.fill(operator.mirror, "fleet");
    const address = server.address("fleet");
    const verify = (...lines: string[]) =>
      nixosPull(["verify", address, "--public-key", operator.publicKey], {
        ...Object.fromEntries(lines.map((line) => line.split("="))),
        AWS_SHARED_CREDENTIALS_FILE: "",
        HOME: "/nonexistent",
      });
    const id = `AWS_ACCESS_KEY_ID=${server.accessKeyId}`;
    const right = await verify(id, `AWS_SECRET_ACCESS_KEY=${server.secretAccessKey}`);
    expect(right.exitCode, right.stderr).toBe(0);
    const wrong = await verify(id, "AWS_SECRET_ACCESS_KEY=wr0ngs3cret");
    expect(wrong.exitCode).toBe(5);
    expect(wrong.stderr).toContain(
      "MIRROR_STATUS: http://127.0.0.1:" + new URL(server.endpoint).port,
    );
    expect(wrong.stderr).toContain("found 403; SignatureDoesNotMatch");
    expect(wrong.stderr).not.toContain("wr0ngs3cret");
    const unknown = await verify("AWS_ACCESS_KEY_ID=AKIANOBODY", "AWS_SECRET_ACCESS_KEY=x");
    expect(unknown.stderr).toContain("InvalidAccessKeyId: the store does not know");
    const nobody = await verify();
    expect(nobody.exitCode).toBe(5);
    expect(nobody.stderr).toContain("is there a credential for this mirror?");
    const half = await verify(id);
    expect(half.exitCode).toBe(3);
    expect(half.stderr).toContain("CREDENTIAL_UNREADABLE: AWS_ACCESS_KEY_ID, AWS_SECRET");
  });
});

/** `nixos-pull mirror` with the server's keys in the environment. */
function mirrorTo(server: BucketServer, args: readonly string[]) {
  return nixosPull(["mirror", ...args], {
    AWS_ACCESS_KEY_ID: server.accessKeyId,
    AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
  });
}

/** Names below the prefix `fleet` with their sizes, by the server's own list. */
async function namesIn(server: BucketServer): Promise<string[]> {
  const { text } = await server.ask("GET", "/mirror/?list-type=2&prefix=fleet%2F");
  return [...text.matchAll(/<Key>fleet\/([^<]*)</g)].map(([, name = ""]) => name).sort();
}

describe.skipIf(!hasBucketServer)("a mirror that is copied into a bucket", () => {
  test("has what hosts need, with what caches must know; a second copy brings only the news", async () => {
    const server = await startBucketServer();
    const operator = await createOperator();
    const [first, second] = [
      await buildSystem({ ...ROW, generation: "1" }),
      await buildSystem({ ...ROW, generation: "2" }),
    ];
    const address = server.address("fleet");
    const copy = async (from: string, ...more: string[]): Promise<any> => {
      const key = ["--public-key", operator.publicKey, "--json"];
      const output = await mirrorTo(server, [from, address, ...key, ...more]);
      expect(output.exitCode, output.stderr).toBe(0);
      return JSON.parse(output.stdout);
    };
    await operator.publish({ web1: first });
    expect(await copy(operator.mirror, "--dry-run")).toMatchObject({ copied: { archives: 1 } });
    expect(await namesIn(server)).toEqual([]);
    expect(await copy(operator.mirror)).toMatchObject({
      channels: [{ isNews: true }],
      copied: { archives: 1, present: 0 },
    });
    const [archive = "", ...others] = await namesIn(server);
    expect(archive).toMatch(/^archives\/[0-9a-f]{64}\.tar$/);
    expect(others).toEqual(["channels/stable/manifest.json"]);
    const headersOf = async (name: string) =>
      (await server.ask("HEAD", `/mirror/fleet/${name}`)).headers;
    expect(await headersOf(archive)).toMatchObject({
      "content-type": "application/x-tar",
      "cache-control": "public, max-age=31536000, immutable",
    });
    expect(await headersOf("channels/stable/manifest.json")).toMatchObject({
      "content-type": "application/json",
      "cache-control": "no-cache",
    });
    const host = await hostOf(operator, server);
    expect((await host.run("apply")).exitCode).toBe(0);

    await operator.publish({ web1: second });
    expect(await copy(operator.mirror)).toMatchObject({
      channels: [{ isNews: true }],
      copied: { archives: 1, present: 1, patches: 1 },
    });
    expect(await copy(operator.mirror)).toMatchObject({
      channels: [{ isNews: false }],
      copied: { archives: 0, present: 2, patches: 0 },
    });
    expect((await host.run("apply")).exitCode).toBe(0);
    expect(await host.profileToplevel()).toBe(second);

    // What the operator's own prune removes goes from the bucket too, and nothing that is needed.
    const whole = await namesIn(server);
    const third = await buildSystem({ parts: 1, partBytes: 1000, generation: "3" });
    await operator.publish({ web1: third }, "--whole");
    await nixosPull(["prune", operator.mirror, "--keep", "1"]);
    const pruned = await copy(operator.mirror, "--prune");
    expect(pruned).toMatchObject({ copied: { archives: 1 } });
    expect(pruned.pruned.archives.length).toBeGreaterThanOrEqual(2);
    const left = await namesIn(server);
    expect(left.length).toBeLessThan(whole.length);
    const verified = await nixosPull(["verify", address, "--public-key", operator.publicKey], {
      AWS_ACCESS_KEY_ID: server.accessKeyId,
      AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
    });
    expect(verified.exitCode, verified.stderr).toBe(0);

    // And back out of the bucket.
    const back = await temporaryDirectory();
    const home = await mirrorTo(server, [address, back, "--public-key", operator.publicKey]);
    expect(home.exitCode, home.stderr).toBe(0);
    const proof = await nixosPull(["verify", back, "--public-key", operator.publicKey]);
    expect(proof.exitCode, proof.stdout).toBe(0);
  });

  test("keeps a newer release, and is never half changed by what cannot be uploaded", async () => {
    const server = await startBucketServer();
    const operator = await createOperator();
    const address = server.address("fleet");
    await operator.publish({ web1: await buildSystem({ ...ROW, generation: "1" }) });
    const stale = await temporaryDirectory();
    const key = ["--public-key", operator.publicKey];
    await nixosPull(["mirror", operator.mirror, stale, ...key]);
    await operator.publish({ web1: await buildSystem({ ...ROW, generation: "2" }) });
    expect((await mirrorTo(server, [operator.mirror, address, ...key])).exitCode).toBe(0);
    const before = await namesIn(server);
    const older = await mirrorTo(server, [stale, address, ...key]);
    expect(older.exitCode).toBe(4);
    expect(older.stderr).toContain("SEQUENCE_REPLAYED");

    // An archive that was damaged on the operator's disk does not get into the bucket.
    await operator.publish({ web1: await buildSystem({ ...ROW, generation: "3" }) });
    const archives = await readdir(join(operator.mirror, "archives"));
    for (const name of archives.filter((it) => !before.includes(`archives/${it}`))) {
      const file = join(operator.mirror, "archives", name);
      const bytes = await readFile(file);
      bytes[bytes.length - 2000] = (bytes[bytes.length - 2000] ?? 0) ^ 1;
      await writeFile(file, bytes);
    }
    const damaged = await mirrorTo(server, [operator.mirror, address, ...key]);
    expect(damaged.exitCode).toBe(6);
    expect(damaged.stderr).toContain("ARCHIVE_CORRUPT: archives/");
    expect(await namesIn(server)).toEqual(before);
  });

  test("tells who comes second that another release was put into force meanwhile", async () => {
    const server = await startBucketServer();
    const operator = await createOperator();
    await operator.publish({ web1: await buildSystem({ ...ROW, generation: "1" }) });
    const address = server.address("fleet");
    const { publicKey } = operator;
    const settings = parseSettings({ mirrors: [address], publicKeys: [publicKey] }, "operator");
    const source = new DirectoryMirror(`file://${operator.mirror}`, settings.limits);
    const file = await keyFile(server.profile);
    const place = parseMirrorAddress(address);
    if (place?.kind !== "bucket") throw new Error("no bucket");
    const theirs = Buffer.from('{"of":"somebody else"}');
    const manifest = "/mirror/fleet/channels/stable/manifest.json";
    const upload = (during: () => Promise<unknown>) =>
      uploadMirror({
        source: {
          ...{ address: source.address, ranges: true },
          readManifest: (channel) => source.readManifest(channel),
          readRelease: (channel, digest) => source.readRelease(channel, digest),
          async *readArchive(...args) {
            await during();
            yield* source.readArchive(...args);
          },
        },
        sourceDirectory: operator.mirror,
        bucket: bucketAt(
          place,
          { ...settings, credentials: { [address]: { type: "s3", file } } },
          new AbortController().signal,
        ),
        asMirror: source,
        channels: null,
        trust: trustPolicyOf(settings),
        storeKeys: settings.storeKeys,
        ...{ allowOlder: false, dryRun: false, prune: false, clock: systemClock },
        onProgress: () => undefined,
        onWarning: () => undefined,
      });
    const error = await rejectionOf(upload(() => server.ask("PUT", manifest, theirs)));
    expect(error.code).toBe("PUBLISH_LOCKED");
    expect(error.message).toContain("put a release of stable into force during this upload");
    expect((await server.ask("GET", manifest)).text).toBe(theirs.toString());
    // Hosts cannot read that one, so this one may follow.
    expect((await upload(() => Promise.resolve())).channels).toMatchObject([{ isNews: true }]);
    const now = (await server.ask("GET", manifest)).text;
    expect(now).toBe(
      await readFile(join(operator.mirror, "channels/stable/manifest.json"), "utf8"),
    );
  });

  test.each([["--host", "web1"], ["--keep", "2"], ["--reports"]])(
    "takes no %s: a bucket has everything",
    async (...option) => {
      const output = await nixosPull(["mirror", "/srv/mirror", "s3://fleet", ...option]);
      expect(output.exitCode).toBe(2);
      expect(output.stderr).toContain("expected a directory to copy to with --host");
    },
  );
});
