import { createHash, randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { HttpMirror } from "../../../../agent/effects/mirror/http-mirror.ts";
import { Pacer } from "../../../../agent/effects/mirror/transfer-rate.ts";
import { Transport } from "../../../../agent/effects/mirror/transport.ts";
import { PullError } from "../../../../agent/core/errors.ts";
import type { Settings } from "../../../../agent/core/settings.ts";
import { Reconnections } from "../../../../agent/effects/mirror/reconnection.ts";
import { breakingLink, type LinkFaults } from "../../../support/breaking-link.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { serveMirror } from "../../../support/mirror-server.ts";
import { sampleDigest } from "../../../support/sample-release.ts";
import { sampleLimits } from "../../../support/sample-settings.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const SHA256 = sampleDigest("archive");
const SIZE = 1_500_000;
const MANIFEST_SIZE = 400_000;

function mirrorAt(address: string, some: Partial<Settings["limits"]> = {}): HttpMirror {
  const limits = sampleLimits({ stallTimeout: 60_000, connectTimeout: 60_000, ...some });
  const transport = new Transport({ limits, tls: {} });
  onTestFinished(() => transport.close());
  return new HttpMirror(address, { limits, transport, pacer: new Pacer(limits.maxRate) });
}

/** A mirror with an archive and a manifest of random bytes, behind a bad link. */
async function linked(faults: LinkFaults, limits: Partial<Settings["limits"]> = {}) {
  const directory = await temporaryDirectory();
  await mkdir(join(directory, "channels/stable"), { recursive: true });
  await mkdir(join(directory, "archives"));
  const [archive, manifest] = [randomBytes(SIZE), randomBytes(MANIFEST_SIZE)];
  const manifestFile = join(directory, "channels/stable/manifest.json");
  await writeFile(manifestFile, manifest);
  await writeFile(join(directory, `archives/${SHA256}.tar`), archive);
  const server = await serveMirror(directory);
  const link = await breakingLink(server.url, faults);
  return { archive, manifest, manifestFile, server, link, mirror: mirrorAt(link.url, limits) };
}

const digest = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

async function read(mirror: HttpMirror, from: number, to: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of mirror.readArchive(SHA256, { from, to })) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const every150kB: LinkFaults = { bytes: () => 150_000 };

test.each<[string, LinkFaults]>([
  ["is reset", every150kB],
  ["is closed", { ...every150kB, end: "close" }],
  ["is slow, and is reset", { ...every150kB, delayMs: 20 }],
])("an archive comes whole over a link that %s every 150 kB", async (_, faults) => {
  const { archive, mirror, link, server } = await linked(faults);
  expect(digest(await read(mirror, 1_000, SIZE))).toBe(digest(archive.subarray(1_000)));
  // A reset takes along what was received and not read yet.
  expect(link.broken).toBeGreaterThanOrEqual(10);
  expect(link.broken).toBeLessThanOrEqual(15);
  // Nothing that came is asked for again.
  const asked = server.requests.map(({ range }) => Number(/=(\d+)/.exec(range ?? "")?.[1]));
  expect(asked).toEqual(asked.toSorted((a, b) => a - b));
  expect(new Set(asked).size).toBe(link.connections);
});

test("an archive goes on over a new connection when the old one falls silent", async () => {
  const { archive, mirror } = await linked(
    { bytes: (connection) => (connection === 1 ? 700_000 : Infinity), end: "silence" },
    { stallTimeout: 1_500 },
  );
  expect(digest(await read(mirror, 0, SIZE))).toBe(digest(archive));
});

test("a manifest comes whole over such a link", async () => {
  const { manifest, mirror, server } = await linked({ ...every150kB, end: "close" });
  const answer = await mirror.readManifest("stable", {});
  expect(answer).toMatchObject({ kind: "read", validators: { etag: expect.any(String) } });
  if (answer.kind === "read") expect(digest(answer.bytes)).toBe(digest(manifest));
  expect(server.requests.map(({ status }) => status)).toEqual([200, 206, 206]);
});

test("a manifest comes whole from a server without ranges, if one connection lasts", async () => {
  const { manifest, mirror, server } = await linked({
    bytes: (connection) => (connection === 1 ? 150_000 : Infinity),
  });
  server.ranges = false;
  const answer = await mirror.readManifest("stable", {});
  if (answer.kind === "read") expect(digest(answer.bytes)).toBe(digest(manifest));
  expect(server.requests.map(({ status }) => status)).toEqual([200, 200]);
});

test("a manifest is never put together of two versions", async () => {
  const { manifestFile, mirror, link } = await linked({
    // The first connection breaks once the manifest is another one.
    bytes: (connection) => (connection === 1 ? 150_000 : Infinity),
  });
  link.onBreak = () => {
    writeFileSync(manifestFile, randomBytes(MANIFEST_SIZE + 1));
  };
  const failure = await rejectionOf(mirror.readManifest("stable", {}));
  expect(failure.code).toBe("MIRROR_UNREACHABLE");
  expect(failure.message).toContain("it was replaced while it was read");
});

test("a manifest of a server that names no version is not put together at all", async () => {
  let requests = 0;
  const url = await serve((_, response) => {
    requests += 1;
    response.writeHead(200, { "content-length": 10 }).write("01234", () => response.destroy());
  });
  const failure = await rejectionOf(mirrorAt(url).readManifest("stable", {}));
  expect(failure.code).toBe("MIRROR_UNREACHABLE");
  expect(requests).toBe(1);
});

test("a server without ranges is read on from the start, and named if that leads nowhere", async () => {
  const good = await linked({ bytes: (connection) => 150_000 * 2 ** connection });
  good.server.ranges = false;
  expect(digest(await read(good.mirror, 0, SIZE))).toBe(digest(good.archive));
  const bad = await linked({ ...every150kB, end: "close" });
  bad.server.ranges = false;
  const failure = await rejectionOf(read(bad.mirror, 0, SIZE));
  expect(failure.code).toBe("MIRROR_UNREACHABLE");
  expect(failure.message).toContain("this server knows no ranges");
  expect(failure.message).toContain(`one that lasts for ${SIZE} bytes`);
  // Two in a row that brought nothing new.
  expect(bad.link.connections).toBe(3);
});

test.each(["archive", "manifest"] as const)(
  "a server without ranges whose connections each last a byte longer is left: %s",
  async (what) => {
    let bytes = 150_000;
    const { mirror, server, link } = await linked({ bytes: () => (bytes += 1), end: "close" });
    server.ranges = false;
    const failure = await rejectionOf(
      what === "archive" ? read(mirror, 0, SIZE) : mirror.readManifest("stable", {}),
    );
    expect(failure.code).toBe("MIRROR_UNREACHABLE");
    expect(link.connections).toBeLessThan(5);
  },
);

test("a connection that was closed while it was idle is made anew", async () => {
  const { archive, mirror, link } = await linked({ bytes: () => 2_600 });
  expect(digest(await read(mirror, 0, 2_000))).toBe(digest(archive.subarray(0, 2_000)));
  // The rest of the connection's bytes does not even take the headers.
  expect(digest(await read(mirror, 0, 2_000))).toBe(digest(archive.subarray(0, 2_000)));
  expect(link.connections).toBeGreaterThan(1);
});

test("a link that brings next to nothing by each connection is too slow", async () => {
  const { mirror } = await linked({ bytes: () => 400 }, { minRate: 4_096, rateWindow: 2_000 });
  expect((await rejectionOf(read(mirror, 0, SIZE))).code).toBe("MIRROR_SLOW");
});

test("what is no break of the link, and a host that refuses, is not tried again", async () => {
  const refused = new PullError("MIRROR_UNREACHABLE", "refused", {
    cause: Object.assign(new Error(), { code: "ECONNREFUSED" }),
  });
  const reset = new PullError("MIRROR_UNREACHABLE", "reset", {
    cause: Object.assign(new Error(), { code: "ECONNRESET" }),
  });
  const tries = new Reconnections(100);
  await expect(tries.after(new PullError("MIRROR_STATUS", "503"), { reached: 900_000 }, undefined))
    .rejects //
    .toThrow("503");
  await tries.after(refused, { reached: 900_000 }, undefined);
  await expect(tries.after(refused, { reached: 900_000 }, undefined)).rejects.toThrow("refused");
  await tries.after(reset, { reached: 1_800_000 }, undefined);
  await tries.after(reset, { reached: 1_800_000 }, undefined);
  await expect(tries.after(reset, { reached: 1_800_000 }, undefined)).rejects.toThrow("reset");
});

test("a stop ends the pause between two connections", async () => {
  const reset = new PullError("MIRROR_UNREACHABLE", "reset");
  const stopped = AbortSignal.abort();
  const failure = await rejectionOf(new Reconnections(0).after(reset, { reached: 10 }, stopped));
  expect(failure.code).toBe("INTERRUPTED");
});
