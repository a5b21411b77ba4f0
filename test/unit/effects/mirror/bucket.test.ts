import { randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { parseBucketAddress } from "../../../../agent/core/formats/bucket-address.ts";
import { sha256Hex } from "../../../../agent/core/formats/sha256.ts";
import { Bucket } from "../../../../agent/effects/mirror/bucket.ts";
import { BucketSigner } from "../../../../agent/effects/mirror/bucket-signer.ts";
import { Transport } from "../../../../agent/effects/mirror/transport.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { sampleLimits } from "../../../support/sample-settings.ts";

const KIND = { contentType: "application/json", cacheControl: "no-cache" };
const MIB = 1024 ** 2;

function bucketAt(text: string): Bucket {
  const address = parseBucketAddress(new URL(text));
  if (!address) throw new Error(`${text} is none`);
  const keys = { accessKeyId: "AKID", secretAccessKey: "secret" };
  const signer = new BucketSigner(address, () => Promise.resolve(keys));
  const transport = new Transport({ limits: sampleLimits(), tls: {} });
  onTestFinished(() => transport.close());
  return new Bucket({ text, address, signer, transport });
}

async function* inPieces(bytes: Uint8Array, length = 1_000_000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}

/** A store as simple or as bad as a test wants it: one object, `/b/m`. */
async function simpleStore(
  handle: (
    request: IncomingMessage,
    response: ServerResponse,
    store: { body: Buffer; object: { bytes: Buffer | null } },
  ) => boolean,
): Promise<{ bucket: Bucket; object: { bytes: Buffer | null }; asked: string[] }> {
  const object: { bytes: Buffer | null } = { bytes: null };
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on("data", (piece: Buffer) => pieces.push(piece));
    request.on("end", () => {
      const { method = "", headers } = request;
      asked.push(`${method}${(headers["if-match"] ?? headers["if-none-match"]) ? " if" : ""}`);
      const body = Buffer.concat(pieces);
      if (handle(request, response, { body, object })) return;
      if (method === "PUT") object.bytes = body;
      if (method !== "GET") response.end();
      else if (object.bytes) response.end(object.bytes);
      else response.writeHead(404).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const text = `s3://fleet?endpoint=http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const bucket = bucketAt(text);
  return { bucket, object, asked };
}

const NOT_IMPLEMENTED = "<Error><Code>NotImplemented</Code></Error>";

describe("a store", () => {
  const [one, two, three] = [Buffer.from("1"), Buffer.from("2"), Buffer.from("3")];

  test("that knows no conditions is asked before and after a manifest is written", async () => {
    const { bucket, object, asked } = await simpleStore(({ method, headers }, response) => {
      if (method !== "PUT" || !headers["if-none-match"]) return false;
      response.writeHead(501).end(NOT_IMPLEMENTED);
      return true;
    });
    expect(await bucket.replace("m", one, { before: null, kind: KIND })).toBe("replaced");
    expect(asked).toEqual(["PUT if", "GET", "PUT", "GET"]);
    // It names no version either.
    const before = await bucket.read("m", 10);
    expect(before).toEqual({ bytes: one });
    object.bytes = two;
    expect(await bucket.replace("m", three, { before, kind: KIND })).toBe("changed");
    expect(object.bytes).toBe(two);
  });

  test("that ignores conditions does not hide that somebody wrote at the same time", async () => {
    const { bucket } = await simpleStore(({ method }, response, { object }) => {
      if (method !== "PUT") return false;
      object.bytes = two;
      response.end();
      return true;
    });
    expect(await bucket.replace("m", one, { before: null, kind: KIND })).toBe("changed");
  });

  test("whose answer was lost has what was written, whatever it says the second time", async () => {
    let puts = 0;
    const { bucket } = await simpleStore(({ method }, response, { body, object }) => {
      if (method !== "PUT") return false;
      puts += 1;
      object.bytes = body;
      if (puts === 1) response.destroy();
      else response.writeHead(412).end();
      return true;
    });
    expect(await bucket.replace("m", one, { before: null, kind: KIND })).toBe("replaced");
    expect(puts).toBe(2);
  });

  test("that is busy is asked again, and not for ever", async () => {
    const { bucket, asked } = await simpleStore((_, response) => {
      response.writeHead(503).end("<Error><Code>SlowDown</Code></Error>");
      return true;
    });
    const error = await rejectionOf(bucket.put("m", one, KIND));
    expect(error.message).toMatch(/found HTTP 503; SlowDown: the store asks for fewer requests$/);
    expect(asked).toEqual(["PUT", "PUT", "PUT", "PUT"]);
  });

  test("may write names of others in its list as XML does", async () => {
    const { bucket } = await simpleStore((_, response) => {
      response.end(
        "<R><Contents><Key>a&amp;b&#39;&lt;</Key><Size>7</Size></Contents>" +
          "<Contents><Key>no size</Key></Contents></R>",
      );
      return true;
    });
    expect([...(await bucket.list(""))]).toEqual([["a&b'<", 7]]);
  });

  test("lists in pages", async () => {
    const { bucket } = await simpleStore(({ url = "" }, response) => {
      const { searchParams } = new URL(url, "http://store");
      const isSecond = searchParams.get("continuation-token") === "to/ken=";
      response.end(
        isSecond
          ? "<R><IsTruncated>false</IsTruncated><Contents><Key>b</Key><Size>2</Size></Contents></R>"
          : "<R><IsTruncated>true</IsTruncated><NextContinuationToken>to/ken=</NextContinuationToken>" +
              "<Contents><Key>a</Key><Size>1</Size></Contents></R>",
      );
      return true;
    });
    expect([...(await bucket.list(""))]).toEqual([
      ["a", 1],
      ["b", 2],
    ]);
  });

  test("whose list has no end is left", async () => {
    const { bucket } = await simpleStore((_, response) => {
      response.end("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>");
      return true;
    });
    const error = await rejectionOf(bucket.list("archives/"));
    expect(error.message).toMatch(/the store's list has no end$/);
  });

  test("that fails to join the parts of an archive with 200 has failed", async () => {
    const { bucket, asked } = await simpleStore(({ method, url = "" }, response) => {
      if (method !== "POST") return false;
      if (url.endsWith("uploads=")) response.end("<X><UploadId>an/id</UploadId></X>");
      else response.end("<Error><Code>InternalError</Code></Error>");
      return true;
    });
    const bytes = randomBytes(17 * MIB);
    const archive = { size: bytes.length, sha256: sha256Hex(bytes), source: inPieces(bytes) };
    const error = await rejectionOf(bucket.upload("m", archive, KIND));
    expect(error.message).toMatch(/InternalError: the store has an error of its own$/);
    expect(asked).toEqual(["POST", "PUT", "PUT", "POST", "DELETE"]);
  });
});
