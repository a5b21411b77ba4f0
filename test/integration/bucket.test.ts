import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { breakingLink } from "../support/breaking-link.ts";
import { hasBucketServer, startBucketServer, type BucketServer } from "../support/bucket-server.ts";
import { buildSystem } from "../support/closure.ts";
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
