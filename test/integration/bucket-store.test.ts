import { randomBytes } from "node:crypto";
import { describe, expect, onTestFinished, test } from "vitest";
import { parseBucketAddress } from "../../agent/core/formats/bucket-address.ts";
import { sha256Hex } from "../../agent/core/formats/sha256.ts";
import { Bucket } from "../../agent/effects/mirror/bucket.ts";
import { BucketSigner } from "../../agent/effects/mirror/bucket-signer.ts";
import { Transport } from "../../agent/effects/mirror/transport.ts";
import { hasBucketServer, startBucketServer, type BucketServer } from "../support/bucket-server.ts";
import { rejectionOf } from "../support/failure.ts";
import { sampleLimits } from "../support/sample-settings.ts";

const KIND = { contentType: "application/json", cacheControl: "no-cache" };
const MIB = 1024 ** 2;

function bucketAt(
  text: string,
  { accessKeyId, secretAccessKey }: { accessKeyId: string; secretAccessKey: string },
  signal?: AbortSignal,
): Bucket {
  const address = parseBucketAddress(new URL(text));
  if (!address) throw new Error(`${text} is none`);
  const signer = new BucketSigner(address, () => Promise.resolve({ accessKeyId, secretAccessKey }));
  const transport = new Transport({ limits: sampleLimits(), tls: {} });
  onTestFinished(() => transport.close());
  return new Bucket({ text, address, signer, transport, signal });
}

async function* inPieces(bytes: Uint8Array, length = 1_000_000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}

/** Uploads that are begun and neither ended nor aborted. */
async function openUploads(server: BucketServer): Promise<number> {
  const { text } = await server.ask("GET", "/mirror/?uploads=");
  return text.split("<UploadId>").length - 1;
}

describe.skipIf(!hasBucketServer)("a bucket of a server that checks signatures", () => {
  test("lists what is below its prefix only, and removes what is there or not", async () => {
    const server = await startBucketServer();
    const bucket = bucketAt(server.address("fleet"), server);
    const names = ["archives/a", "archives/x", "archives/y"];
    for (const [at, name] of names.entries()) await bucket.put(name, Buffer.alloc(at), KIND);
    await server.ask("PUT", "/mirror/fleet2/archives/z", Buffer.from("z"));
    await bucket.put("channels/stable/manifest.json", Buffer.from("{}"), KIND);
    expect([...(await bucket.list("archives/"))]).toEqual([
      ["archives/a", 0],
      ["archives/x", 1],
      ["archives/y", 2],
    ]);
    await bucket.remove("archives/x");
    await bucket.remove("archives/x");
    expect([...(await bucket.list("")).keys()]).toEqual([
      "archives/a",
      "archives/y",
      "channels/stable/manifest.json",
    ]);
  });

  test("lists more than one page", async () => {
    const server = await startBucketServer();
    const bucket = bucketAt(server.address("fleet"), server);
    const names = Array.from({ length: 1_003 }, (_, at) => `archives/${at + 1_000}`);
    for (const name of names) await bucket.put(name, Buffer.from("x"), KIND);
    expect([...(await bucket.list("archives/")).keys()]).toEqual(names);
  });

  test("takes a large archive in parts, and a damaged one not at all", async () => {
    const server = await startBucketServer();
    const bucket = bucketAt(server.address("fleet"), server);
    const bytes = randomBytes(35 * MIB + 7);
    const archive = { size: bytes.length, sha256: sha256Hex(bytes) };
    await bucket.upload("archives/one", { ...archive, source: inPieces(bytes) }, KIND);
    const read = await bucket.read("archives/one", bytes.length);
    expect(read?.bytes.equals(bytes)).toBe(true);

    const other = Buffer.from(bytes);
    other[20 * MIB] = (other[20 * MIB] ?? 0) ^ 1;
    const corrupt = await rejectionOf(
      bucket.upload("archives/two", { ...archive, source: inPieces(other) }, KIND),
    );
    expect(corrupt.code).toBe("ARCHIVE_CORRUPT");
    for (const length of [bytes.length - 1, bytes.length + 1, 17 * MIB]) {
      const source = inPieces(Buffer.concat([bytes, bytes]).subarray(0, length));
      const error = await rejectionOf(bucket.upload("archives/two", { ...archive, source }, KIND));
      expect(error.code).toBe("ARCHIVE_TRUNCATED");
    }
    expect([...(await bucket.list("")).keys()]).toEqual(["archives/one"]);
    expect(await openUploads(server)).toBe(0);
  });

  test("is left without parts if an upload is stopped", async () => {
    const server = await startBucketServer();
    const stop = new AbortController();
    const bucket = bucketAt(server.address("fleet"), server, stop.signal);
    const bytes = randomBytes(40 * MIB);
    let passed = 0;
    const source = async function* (): AsyncGenerator<Uint8Array> {
      for await (const piece of inPieces(bytes)) {
        yield piece;
        passed += piece.length;
        if (passed > 20 * MIB) stop.abort();
      }
    };
    const upload = { size: bytes.length, sha256: sha256Hex(bytes), source: source() };
    const error = await rejectionOf(bucket.upload("archives/one", upload, KIND));
    expect(error.code).toBe("INTERRUPTED");
    expect(await openUploads(server)).toBe(0);
  });

  test("replaces a manifest only if it is the one that was read", async () => {
    const server = await startBucketServer();
    const bucket = bucketAt(server.address("fleet"), server);
    const [name, one, two, three] = ["m.json", ...["1", "2", "3"].map((it) => Buffer.from(it))];
    const to = (body: Buffer, before: Awaited<ReturnType<Bucket["read"]>>) =>
      bucket.replace(name, body, { before, kind: KIND });
    expect(await to(one!, null)).toBe("replaced");
    expect(await to(two!, null)).toBe("changed");
    const read = await bucket.read(name, 10);
    expect(read).toMatchObject({ bytes: one, etag: expect.stringMatching(/^".+"$/) });
    expect(await to(two!, read)).toBe("replaced");
    expect(await to(three!, read)).toBe("changed");
    expect((await bucket.read(name, 10))?.bytes).toEqual(two);
    await bucket.remove(name);
    expect(await to(three!, read)).toBe("changed");
    expect(await bucket.read(name, 10)).toBeNull();
  });

  test("refuses who may not write, with a reason and without the secret", async () => {
    const server = await startBucketServer();
    const keys = { ...server, secretAccessKey: "wr0ngs3cret" };
    const bucket = bucketAt(server.address("fleet"), keys);
    const error = await rejectionOf(bucket.put("archives/x", Buffer.from("x"), KIND));
    expect(error.code).toBe("MIRROR_STATUS");
    expect(error.message).toMatch(
      /^PUT http:\/\/127\.0\.0\.1:\d+\/mirror\/fleet\/archives\/x: found HTTP 403; SignatureDoesNotMatch: /,
    );
    expect(error.message).not.toContain("wr0ngs3cret");
  });
});
