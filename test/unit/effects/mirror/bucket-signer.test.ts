import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { bucketUrl, parseBucketAddress } from "../../../../agent/core/formats/bucket-address.ts";
import type { BucketKeys } from "../../../../agent/core/formats/bucket-keys.ts";
import { BucketSigner } from "../../../../agent/effects/mirror/bucket-signer.ts";
import { HttpMirror } from "../../../../agent/effects/mirror/http-mirror.ts";
import { Pacer } from "../../../../agent/effects/mirror/transfer-rate.ts";
import { Transport } from "../../../../agent/effects/mirror/transport.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { sampleLimits } from "../../../support/sample-settings.ts";

/** Of the examples in "Signature Calculations for the Authorization Header" (Amazon S3 API). */
const KEYS: BucketKeys = {
  accessKeyId: "AKIAIOSFODNN7EXAMPLE",
  secretAccessKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
};
const EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const THEN = new Date("2013-05-24T00:00:00Z");

function addressOf(text: string) {
  const address = parseBucketAddress(new URL(text));
  if (!address) throw new Error(`${text} is none`);
  return address;
}

const EXAMPLE = addressOf(
  "s3://examplebucket?endpoint=https://s3.amazonaws.com&pathStyle=false&region=us-east-1",
);

function signerOf(address = EXAMPLE, keys: BucketKeys | null = KEYS): BucketSigner {
  return new BucketSigner(
    address,
    () => Promise.resolve(keys),
    () => THEN,
  );
}

describe("Amazon's own examples of signatures", () => {
  test.each([
    [
      { method: "GET", path: "?lifecycle=", bodySha256: EMPTY },
      "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ],
    [
      { method: "GET", path: "?max-keys=2&prefix=J", bodySha256: EMPTY },
      "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ],
    [
      {
        method: "PUT",
        path: "test%24file.text",
        bodySha256: "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        headers: {
          date: "Fri, 24 May 2013 00:00:00 GMT",
          "x-amz-storage-class": "REDUCED_REDUNDANCY",
        },
      },
      "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ],
  ] as const)("%o", async ({ path, ...request }, signature) => {
    const url = new URL(path, bucketUrl(EXAMPLE));
    const { authorization, ...others } = await signerOf().sign({ ...request, url });
    expect(authorization).toContain(
      "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request",
    );
    expect(authorization?.split("Signature=")[1]).toBe(signature);
    expect(others).toMatchObject({ "x-amz-date": "20130524T000000Z" });
  });
});

describe("what is signed", () => {
  const AWS = addressOf("s3://fleet/a?region=eu-west-1");
  const headersOf = (href: string, address = AWS, keys: BucketKeys | null = KEYS) =>
    signerOf(address, keys).sign({ method: "GET", url: new URL(href) });

  test("is a request to the bucket, with its session token", async () => {
    const keys = { ...KEYS, sessionToken: "session" };
    const own = "https://fleet.s3.eu-west-1.amazonaws.com/a/channels/stable/manifest.json";
    expect(await headersOf(own, AWS, keys)).toMatchObject({
      authorization: expect.stringContaining("/eu-west-1/s3/aws4_request"),
      "x-amz-security-token": "session",
    });
  });

  test.each([
    ["https://fleet.s3.us-west-2.amazonaws.com/a/x", "us-west-2"],
    ["https://fleet.s3-us-west-2.amazonaws.com/a/x", "us-west-2"],
  ])("is a request to %s, where AWS may say that the bucket is", async (href, region) => {
    const { authorization } = await headersOf(href);
    expect(authorization).toContain(`/20130524/${region}/s3/`);
  });

  test.each([
    "http://fleet.s3.us-west-2.amazonaws.com/a/x",
    "https://other.s3.us-west-2.amazonaws.com/a/x",
    "https://fleet.s3.us-west-2.amazonaws.com.example.org/a/x",
    "https://fleet.s3.evil.example.org.amazonaws.com/a/x",
    "https://fleet.example.org/",
  ])("is never one to %s", async (href) => {
    expect(await headersOf(href)).toEqual({});
  });

  test("is nothing without keys, nor over a network in the clear", async () => {
    const plain = addressOf("s3://fleet?endpoint=http://store.example.org");
    expect(await headersOf("https://fleet.s3.eu-west-1.amazonaws.com/", AWS, null)).toEqual({});
    expect(await headersOf("http://store.example.org/fleet/x", plain)).toEqual({});
  });

  test("is nothing to another region of a store that is not AWS", async () => {
    const href = "https://examplebucket.s3.eu-west-1.amazonaws.com/x";
    expect(await headersOf(href, EXAMPLE)).toEqual({});
  });
});

interface Answer {
  readonly status: number;
  readonly headers?: Record<string, string>;
  readonly body?: string;
}

/** A mirror in a bucket of a server that answers everything alike. */
async function mirrorThatAnswers({ status, headers, body }: Answer) {
  const requests: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    requests.push(request);
    response.writeHead(status, headers).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const limits = sampleLimits();
  const transport = new Transport({ limits, tls: {} });
  onTestFinished(async () => {
    await transport.close();
    server.close();
  });
  const text = `s3://fleet?endpoint=http://127.0.0.1:${port}`;
  const bucket = { url: bucketUrl(addressOf(text)), signer: signerOf(addressOf(text)) };
  const mirror = new HttpMirror(text, { limits, transport, pacer: new Pacer(0), bucket });
  return { mirror, requests };
}

function errorBody(code: string): string {
  return `<?xml version="1.0"?><Error><Code>${code}</Code><Message>a secret of the store</Message></Error>`;
}

describe("a store that refuses", () => {
  test.each([
    [
      { status: 403, body: errorBody("RequestTimeTooSkewed") },
      "MIRROR_STATUS",
      /found 403; this host's clock says 2013-05-24T00:00:00\.000Z, and the store's differs by more/,
    ],
    [
      { status: 403, body: errorBody("SignatureDoesNotMatch") },
      "MIRROR_STATUS",
      /found 403; SignatureDoesNotMatch: the secret does not belong to this access key$/,
    ],
    [
      { status: 400, body: errorBody("AuthorizationHeaderMalformed") },
      "MIRROR_STATUS",
      /found 400; AuthorizationHeaderMalformed: is the region in the mirror's address right\?$/,
    ],
    [
      { status: 403, body: errorBody("SomethingElse") },
      "MIRROR_STATUS",
      /found 403; may these keys read and list the bucket, and is there a credential for this mirror\?$/,
    ],
    [{ status: 404, body: errorBody("NoSuchKey") }, "MIRROR_NOT_FOUND", /found 404$/],
    [
      { status: 404, body: errorBody("NoSuchBucket") },
      "MIRROR_NOT_FOUND",
      /found 404; NoSuchBucket: there is no such bucket$/,
    ],
    [
      { status: 301, headers: { "x-amz-bucket-region": "eu-west-1" } },
      "MIRROR_REDIRECT",
      /301 without a usable location; the bucket is in the region eu-west-1: expected region=eu-west-1 in the mirror's address$/,
    ],
    [
      { status: 307, headers: { location: "http://169.254.169.254/latest/" } },
      "MIRROR_REDIRECT",
      /refused the redirect .*: it leads into a network that is not the mirror's$/,
    ],
  ] as const)("%o: %s", async (answer, code, message) => {
    const { mirror, requests } = await mirrorThatAnswers(answer);
    const error = await rejectionOf(mirror.readManifest("stable", {}));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    expect(error.message).not.toMatch(/secret of the store|wJalr|AKIA/);
    expect(requests[0]?.headers.authorization).toContain("Credential=AKIAIOSFODNN7EXAMPLE/");
  });
});
