import { readFileSync } from "node:fs";
import { copyFile, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "vitest";
import {
  RELEASE_PAYLOAD_TYPE,
  envelopeSchema,
  preAuthenticationEncoding,
  sealEnvelope,
  type Envelope,
} from "../../agent/core/formats/envelope.ts";
import type { HostEntry, Manifest } from "../../agent/core/formats/manifest.ts";
import { generateKey, parseSecretKey, signBytes } from "../../agent/core/formats/signing-key.ts";
import { runProcess } from "../../agent/effects/process/subprocess.ts";
import { answerOf } from "../support/answer.ts";
import {
  defend,
  servedRelease,
  serves,
  signed,
  type Attack,
  type Deed,
  type Target,
} from "../support/attack.ts";
import {
  archiveAnswers,
  interruptArchive,
  manifestAnswers,
  manifestStatus,
  neverAnswers,
} from "../support/misbehaviours.ts";
import { serveMirror, type MirrorServer } from "../support/mirror-server.ts";
import { testEnvironment } from "../support/nixos-pull.ts";
import {
  PAYLOAD_BYTES,
  publishReleases,
  sealManifest,
  type ReleaseSeries,
} from "../support/release-series.ts";
import type { SandboxHost } from "../support/sandbox.ts";
import { suiteDirectory } from "../support/suite-directory.ts";

const directory = suiteDirectory();
let series: ReleaseSeries;
beforeAll(async () => {
  series = await publishReleases(directory);
});

const stranger = parseSecretKey(generateKey("stranger-1").secret);
const second = parseSecretKey(generateKey("second-1").secret);

/** Any text in the manifest's place. */
const text =
  (make: (honest: string, series: ReleaseSeries) => string | Uint8Array): Deed =>
  async ({ series, mirror }) => {
    await mirror.writeManifest(make(await readFile(mirror.manifestFile, "utf8"), series));
  };

/** The published envelope with changes that nobody signed. */
const envelope = (change: (envelope: Envelope, series: ReleaseSeries) => unknown): Deed =>
  text((honest, series) => {
    const value = envelopeSchema.parse(JSON.parse(honest));
    change(value, series);
    return JSON.stringify(value);
  });

function entryOf(manifest: Manifest): HostEntry {
  const entry = manifest.hosts["web1"];
  if (!entry) throw new Error("the manifest does not name web1");
  return entry;
}

const twoKeys = (series: ReleaseSeries): Record<string, unknown> => ({
  publicKeys: [series.publicKey, second.publicKey.text],
  threshold: 2,
});
const signedByBoth: Deed = async ({ series, mirror }) => {
  await mirror.release(2);
  await mirror.writeManifest(sealManifest(series.manifests[2], series.secretKey, second));
};

/** The history of a release that names none before it. */
const NO_HISTORY = { since: { sequence: 1 }, releases: [] };

const inDays = (days: number): string => new Date(Date.now() + days * 86_400_000).toISOString();

const CONTENTS: Attack[] = [
  {
    name: "no signature at all",
    code: "SIGNATURE_THRESHOLD",
    attack: envelope((it) => (it.signatures = [])),
  },
  {
    name: "a signature by a key that is not trusted",
    code: "SIGNATURE_THRESHOLD",
    attack: ({ series, mirror }) =>
      mirror.writeManifest(sealManifest(series.manifests[2], stranger)),
  },
  {
    name: "a stranger's signature under the trusted key's name",
    code: "SIGNATURE_THRESHOLD",
    attack: ({ series, mirror }) => {
      const named = { ...stranger, name: series.secretKey.name };
      return mirror.writeManifest(sealManifest(series.manifests[2], named));
    },
  },
  {
    name: "one signature where two keys must sign",
    code: "SIGNATURE_THRESHOLD",
    attack: text((honest) => honest),
    settings: twoKeys,
    repair: signedByBoth,
  },
  {
    name: "the same key signing twice where two keys must sign",
    code: "SIGNATURE_THRESHOLD",
    attack: ({ series, mirror }) => {
      const again = { ...series.secretKey, name: second.name };
      return mirror.writeManifest(sealManifest(series.manifests[2], series.secretKey, again));
    },
    settings: twoKeys,
    repair: signedByBoth,
  },
  {
    name: "one key that is trusted under two names where two keys must sign",
    code: "SIGNATURE_THRESHOLD",
    attack: text((honest) => honest),
    settings: (series) => ({
      publicKeys: [
        series.publicKey,
        series.publicKey.replace(/^[^:]+/, "alias-1"),
        second.publicKey.text,
      ],
      threshold: 2,
    }),
    repair: signedByBoth,
  },
  {
    name: "a payload of another type, signed as such",
    code: "PAYLOAD_TYPE_WRONG",
    attack: ({ series, mirror }) => {
      const payloadType = "application/vnd.nixos-pull.report+json";
      const payload = Buffer.from(JSON.stringify(series.manifests[2]));
      const sig = signBytes(series.secretKey, preAuthenticationEncoding(payloadType, payload));
      const signatures = [{ sig: sig.toString("base64") }];
      return mirror.writeManifest(
        JSON.stringify({ payloadType, payload: payload.toString("base64"), signatures }),
      );
    },
  },
  {
    name: "a payload signed as another type but called a release",
    code: "SIGNATURE_THRESHOLD",
    attack: ({ series, mirror }) => {
      const payload = Buffer.from(JSON.stringify(series.manifests[2]));
      const sig = signBytes(series.secretKey, preAuthenticationEncoding("text/plain", payload));
      return mirror.writeManifest(
        JSON.stringify({
          payloadType: RELEASE_PAYLOAD_TYPE,
          payload: payload.toString("base64"),
          signatures: [{ sig: sig.toString("base64") }],
        }),
      );
    },
  },
  {
    name: "a payload that was changed after signing",
    code: "SIGNATURE_THRESHOLD",
    attack: envelope((it, series) => {
      const manifest = { ...series.manifests[2], sequence: 99 };
      it.payload = Buffer.from(JSON.stringify(manifest)).toString("base64");
    }),
  },
  {
    name: "an unknown field in the envelope",
    code: "ENVELOPE_INVALID",
    attack: envelope((it) => Object.assign(it, { comment: "hello" })),
  },
  {
    name: "more signatures than anybody needs",
    code: "ENVELOPE_INVALID",
    attack: envelope((it) => {
      it.signatures = Array.from({ length: 1000 }, () => it.signatures).flat();
    }),
  },
  {
    name: "a requirement that no version knows, signed with the real key",
    code: "AGENT_TOO_OLD",
    attack: signed((it) => Object.assign(it, { requires: ["post-install"] })),
    // It was accepted, as far as trust goes: only a newer one replaces it.
    honest: 3,
  },
  {
    name: "a signed payload that is not JSON",
    code: "MANIFEST_INVALID",
    attack: ({ series, mirror }) =>
      mirror.writeManifest(sealEnvelope(Buffer.from("release 2"), [series.secretKey])),
  },
  {
    name: "a signed toplevel outside of the store",
    code: "MANIFEST_INVALID",
    attack: signed((it) => (entryOf(it).toplevel = "/nix/store/../../tmp/evil")),
  },
  {
    name: "a signed archive name that leads out of the mirror",
    code: "MANIFEST_INVALID",
    attack: signed((it) => (entryOf(it).archive.sha256 = "../".repeat(21) + "x")),
  },
  {
    name: "an older release once more",
    code: "SEQUENCE_REPLAYED",
    before: ({ host }) => host.run("apply"),
    attack: ({ mirror }) => mirror.release(1),
    honest: 3,
  },
  {
    name: "the accepted sequence number with other contents",
    code: "SEQUENCE_CONFLICT",
    attack: signed((it) => Object.assign(it, { sequence: 1, history: NO_HISTORY })),
  },
  {
    name: "a release that has expired",
    code: "MANIFEST_EXPIRED",
    attack: signed((it) => (it.expiresAt = inDays(-1))),
  },
  {
    name: "a release created in the future",
    code: "CLOCK_IMPLAUSIBLE",
    attack: signed((it) => (it.createdAt = inDays(1))),
  },
  {
    name: "another channel's release",
    code: "CHANNEL_MISMATCH",
    attack: signed((it) => (it.channel = "canary")),
  },
  {
    name: "a release that does not name this host",
    code: "HOST_NOT_IN_RELEASE",
    attack: signed((it) => (it.hosts = { web2: entryOf(it) })),
    honest: 3,
  },
  {
    name: "a host called like a property of every object",
    code: "HOST_NOT_IN_RELEASE",
    settings: () => ({ hostname: "constructor" }),
    attack: signed(() => undefined),
    repair: async ({ series, mirror }) => {
      const hosts = { constructor: entryOf(series.manifests[3]) };
      const manifest = { ...series.manifests[3], hosts };
      await mirror.release(3);
      await mirror.writeManifest(sealManifest(manifest, series.secretKey));
    },
    honest: 3,
  },
  {
    name: "a newer format version, with whatever that brings",
    code: "FORMAT_UNSUPPORTED",
    attack: signed((it) => Object.assign(it, { formatVersion: 2, novelty: true })),
  },
  {
    name: "an HTML page",
    code: "ENVELOPE_INVALID",
    attack: text(() => "<!doctype html><title>Please sign in to Hotel WiFi</title>"),
  },
  {
    name: "an empty file",
    code: "ENVELOPE_INVALID",
    attack: text(() => ""),
  },
  {
    name: "JSON that lacks its last byte",
    code: "ENVELOPE_INVALID",
    attack: text((honest) => honest.trimEnd().slice(0, -1)),
  },
  {
    name: "JSON nested a million deep",
    code: "ENVELOPE_INVALID",
    attack: text(() => "[".repeat(1_000_000) + "]".repeat(1_000_000)),
  },
  { name: "binary noise", code: "ENVELOPE_INVALID", attack: text(() => Buffer.alloc(5000, 0xff)) },
  {
    name: "a manifest longer than the limit",
    code: "MIRROR_OVERSIZE",
    settings: () => ({ limits: { manifestBytes: 20_000 } }),
    attack: text((honest) => honest + " ".repeat(20_000)),
  },
];

/** These are read by other code in a directory. */
const ALSO_IN_A_DIRECTORY = [
  "no signature at all",
  "an older release once more",
  "an empty file",
  "JSON that lacks its last byte",
  "a manifest longer than the limit",
];

const quick = (): Record<string, unknown> => ({ limits: { stallTimeout: "1s", rateWindow: "1s" } });

const HTTP: Attack[] = [
  { name: "HTTP 404", code: "MIRROR_NOT_FOUND", attack: serves(() => manifestStatus(404)) },
  { name: "HTTP 410", code: "MIRROR_NOT_FOUND", attack: serves(() => manifestStatus(410)) },
  { name: "HTTP 500", code: "MIRROR_STATUS", attack: serves(() => manifestStatus(500)) },
  { name: "HTTP 204", code: "MIRROR_STATUS", attack: serves(() => manifestStatus(204)) },
  {
    name: "HTTP 304 without a question",
    code: "MIRROR_STATUS",
    attack: serves(() => manifestStatus(304)),
  },
  {
    name: "a redirect to itself",
    code: "MIRROR_REDIRECT",
    attack: serves(() => manifestStatus(302, { location: "/channels/stable/manifest.json" })),
  },
  {
    name: "redirects without end",
    code: "MIRROR_REDIRECT",
    attack: serves(() => {
      let hops = 0;
      return manifestAnswers((_, response) => {
        const location = `/${++hops}/manifest.json`;
        response.writeHead(307, { location }).end();
      });
    }),
  },
  {
    name: "a redirect to a file of the host",
    code: "MIRROR_REDIRECT",
    attack: serves(({ mirror }) =>
      manifestStatus(302, { location: pathToFileURL(mirror.manifestFile).href }),
    ),
  },
  {
    name: "a redirect to nowhere",
    code: "MIRROR_REDIRECT",
    attack: serves(() => manifestStatus(301)),
  },
  {
    name: "no answer, ever",
    code: "MIRROR_STALLED",
    settings: quick,
    attack: serves(() => neverAnswers),
  },
  {
    name: "half a manifest, then silence",
    code: "MIRROR_STALLED",
    settings: quick,
    attack: serves(() =>
      manifestAnswers((_, response) => {
        response.writeHead(200, { "content-length": 5000 }).write('{ "payloadType"');
      }),
    ),
  },
  {
    name: "a connection that is cut at once",
    code: "MIRROR_UNREACHABLE",
    attack: serves(() => manifestAnswers((request) => request.socket.destroy())),
  },
  {
    name: "a connection that is cut in the manifest",
    code: "MIRROR_UNREACHABLE",
    attack: serves(() =>
      manifestAnswers((request, response) => {
        response.writeHead(200, { "content-length": 5000 });
        response.write('{ "payloadType"', () => request.socket.destroy());
      }),
    ),
  },
  {
    name: "something other than HTTP",
    code: "MIRROR_UNREACHABLE",
    attack: serves(() => manifestAnswers((request) => request.socket.end("220 mail.example\r\n"))),
  },
  {
    name: "headers without end",
    code: "MIRROR_UNREACHABLE",
    attack: serves(() => manifestStatus(200, { "x-noise": "x".repeat(64 * 1024) })),
  },
  {
    name: "a manifest without end",
    code: "MIRROR_OVERSIZE",
    settings: () => ({ limits: { manifestBytes: 100_000 } }),
    attack: serves(() =>
      manifestAnswers((_, response) => {
        const write = (): void => {
          while (response.write(" ".repeat(10_000)));
        };
        response.writeHead(200).on("drain", write);
        write();
      }),
    ),
  },
  {
    name: "a manifest that is announced to be longer than the limit",
    code: "MIRROR_OVERSIZE",
    settings: () => ({ limits: { manifestBytes: 100_000 } }),
    attack: serves(() =>
      manifestAnswers((_, response) => {
        response.writeHead(200, { "content-length": 1024 ** 3 }).write(" ".repeat(200_000));
      }),
    ),
  },
  {
    name: "a manifest that is compressed unasked",
    code: "ENVELOPE_INVALID",
    attack: serves(({ mirror }) =>
      manifestAnswers((_, response) => {
        response.writeHead(200, { "content-encoding": "gzip" });
        response.end(gzipSync(readFileSync(mirror.manifestFile)));
      }),
    ),
  },
  {
    name: "HTTP 500 for the archive",
    code: "MIRROR_STATUS",
    attack: serves(() => archiveAnswers((_, response) => response.writeHead(500).end())),
  },
  {
    name: "an HTML page for the archive",
    code: "ARCHIVE_TRUNCATED",
    attack: serves(() => archiveAnswers((_, response) => response.end("<!doctype html>"))),
  },
  {
    name: "another range than was asked for",
    code: "MIRROR_STATUS",
    attack: serves(() =>
      archiveAnswers((_, response) => {
        response.writeHead(206, { "content-range": "bytes 0-4095/8192" }).end(Buffer.alloc(4096));
      }),
    ),
  },
  {
    name: "half an archive, then silence",
    code: "MIRROR_STALLED",
    settings: quick,
    staging: "kept",
    attack: serves(
      ({ mirror }) => interruptArchive(mirror.directory, PAYLOAD_BYTES / 2, "wait").misbehave,
    ),
  },
  {
    name: "half an archive, then a cut connection",
    code: "MIRROR_UNREACHABLE",
    staging: "kept",
    attack: serves(
      ({ mirror }) => interruptArchive(mirror.directory, PAYLOAD_BYTES / 2, "cut").misbehave,
    ),
  },
];

/** Replaces a file of the mirror by something that is none. */
const replaced =
  (what: (target: Target) => string, make: (path: string) => Promise<unknown>): Deed =>
  async (target) => {
    const path = what(target);
    await rm(path, { recursive: true, force: true });
    await make(path);
  };
const manifestOf = ({ mirror }: Target): string => mirror.manifestFile;
const archiveOf = ({ mirror }: Target): string => mirror.archiveFile(2);
const fifo = (path: string): Promise<unknown> =>
  runProcess("mkfifo", [path], { env: testEnvironment(), timeoutMs: 60_000 });

const DIRECTORY: Attack[] = [
  {
    name: "no manifest",
    code: "MIRROR_NOT_FOUND",
    attack: ({ mirror }) => rm(mirror.manifestFile),
  },
  { name: "a FIFO as manifest", code: "MIRROR_STATUS", attack: replaced(manifestOf, fifo) },
  {
    name: "a directory as manifest",
    code: "MIRROR_STATUS",
    attack: replaced(manifestOf, (path) => mkdir(path)),
  },
  {
    name: "a manifest without end",
    code: "MIRROR_STATUS",
    attack: replaced(manifestOf, (path) => symlink("/dev/zero", path)),
  },
  {
    name: "a manifest that is a link to itself",
    code: "MIRROR_STATUS",
    attack: replaced(manifestOf, (path) => symlink(path, path)),
  },
  { name: "a FIFO as archive", code: "MIRROR_STATUS", attack: replaced(archiveOf, fifo) },
  {
    name: "a directory as archive",
    code: "MIRROR_STATUS",
    attack: replaced(archiveOf, (path) => mkdir(path)),
  },
  {
    name: "an archive that is a link to itself",
    code: "MIRROR_STATUS",
    attack: replaced(archiveOf, (path) => symlink(path, path)),
  },
];

describe("a hostile manifest over HTTP is refused", () => {
  defend(() => series, "http", CONTENTS);
});
describe("a hostile manifest in a directory is refused", () => {
  const chosen = CONTENTS.filter(({ name }) => ALSO_IN_A_DIRECTORY.includes(name));
  defend(() => series, "file", chosen);
});
describe("a misbehaving HTTP server does no harm", () => {
  defend(() => series, "http", HTTP);
});
describe("a directory that is not what it should be does no harm", () => {
  defend(() => series, "file", DIRECTORY);
});

test("a manifest behind five honest redirects is followed", async () => {
  const { server, host } = await servedRelease(series);
  let hops = 0;
  server.misbehave = (request, response) => {
    if (hops === 5) return false;
    const manifest = "/channels/stable/manifest.json";
    const location = ++hops === 5 ? manifest : `/hop/${hops}`;
    response.writeHead(308, { location }).end();
    return request.url !== undefined;
  };
  const updated = await host.run("apply");
  expect(updated.exitCode, updated.stderr).toBe(0);
  expect(hops).toBe(5);
});

describe("of two mirrors", () => {
  /** Two mirrors at release 2 over HTTP, the first of them bad, and a host at release 1. */
  async function two(
    bad: Deed,
    settings: Record<string, unknown> = {},
  ): Promise<{ host: SandboxHost; servers: [MirrorServer, MirrorServer] }> {
    const mirrors = [await series.mirror(2), await series.mirror(2)] as const;
    const servers: [MirrorServer, MirrorServer] = [
      await serveMirror(mirrors[0].directory),
      await serveMirror(mirrors[1].directory),
    ];
    const host = await series.host({ mirrors: servers.map(({ url }) => url), ...settings });
    await bad({ series, mirror: mirrors[0], server: servers[0], host });
    return { host, servers };
  }

  test.each<{ name: string; bad: Deed; settings?: Record<string, unknown> }>([
    { name: "an HTML page", bad: text(() => "<!doctype html>") },
    { name: "HTTP 500", bad: serves(() => manifestStatus(500)) },
    { name: "no answer, ever", bad: serves(() => neverAnswers), settings: quick() },
    { name: "no archive", bad: ({ mirror }) => rm(mirror.archiveFile(2)) },
    {
      name: "HTTP 500 for the archive",
      bad: serves(() => archiveAnswers((_, response) => response.writeHead(500).end())),
    },
    {
      name: "half an archive, then silence",
      bad: serves(({ mirror }) => interruptArchive(mirror.directory, 1_000_000, "wait").misbehave),
      settings: quick(),
    },
    {
      name: "another archive",
      bad: async ({ mirror }) => {
        await copyFile(mirror.archiveFile(3), mirror.archiveFile(2));
      },
    },
    {
      name: "a NAR with one wrong byte",
      bad: async ({ mirror }) => {
        const bytes = await readFile(mirror.archiveFile(2));
        await writeFile(mirror.archiveFile(2), bytes.fill(0x55, 1_000_000, 1_000_001));
      },
    },
  ])("the second is used where the first gives $name", async ({ bad, settings }) => {
    const { host, servers } = await two(bad, settings);
    const updated = await host.run("apply");
    expect(updated.exitCode, updated.stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
    expect(await host.stagingIsClean()).toBe(true);
    expect(servers[1].requests).not.toEqual([]);
  });

  test("the one that is ahead wins over a stale one before it", async () => {
    const { host } = await two(({ mirror }) => mirror.release(1));
    const updated = await answerOf(host, "apply");
    expect(updated).toMatchObject({ exitCode: 0, updated: true });
    expect(updated.mirrors.map(({ sequence }) => sequence)).toEqual([1, 2]);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
  });

  test("one that falls behind what was accepted is named, and harms nothing", async () => {
    const [stale, good] = [await series.mirror(2), await series.mirror(2)];
    const host = await series.host({ mirrors: [stale.address, good.address] });
    await host.run("apply");
    await stale.release(1);
    const again = await answerOf(host, "apply");
    expect(again).toMatchObject({ exitCode: 0, updated: false, decision: "active" });
    expect(again.mirrors.map(({ code }) => code)).toEqual(["SEQUENCE_REPLAYED", undefined]);
  });

  test("both are refused with the first one's error where both are bad", async () => {
    const [first, other] = [await series.mirror(2), await series.mirror(2)];
    await first.writeManifest("");
    await rm(other.manifestFile);
    const host = await series.host({ mirrors: [first.address, other.address] });
    const refused = await answerOf(host, "apply");
    expect(refused).toMatchObject({ exitCode: 4, error: { code: "ENVELOPE_INVALID" } });
    expect(refused.mirrors.map(({ code }) => code)).toEqual([
      "ENVELOPE_INVALID",
      "MIRROR_NOT_FOUND",
    ]);
  });

  test("a stick gives the archive and a server the manifest", async () => {
    const stick = await series.mirror(2);
    await rm(stick.manifestFile);
    const server = await serveMirror((await series.mirror(2)).directory);
    const host = await series.host({ mirrors: [stick.address, server.url] });
    const updated = await host.run("apply");
    expect(updated.exitCode, updated.stderr).toBe(0);
    // Once to find the release, once more after the fetch, and from the new system.
    expect(server.requests.map(({ path, status }) => `${path} ${status}`)).toEqual([
      "/channels/stable/manifest.json 200",
      "/channels/stable/manifest.json 304",
      "/channels/stable/manifest.json 304",
    ]);
  });

  // A slow mirror meets a rate floor, then the next mirror.
  test("one that drips a byte now and then does not hold the host up", async () => {
    const { host } = await two(
      serves(() =>
        manifestAnswers((_, response) => {
          const drip = setInterval(() => response.write(" "), 200);
          response.writeHead(200).on("close", () => {
            clearInterval(drip);
          });
        }),
      ),
      quick(),
    );
    const running = host.start("apply");
    const timer = setTimeout(() => running.child.kill("SIGKILL"), 240_000);
    const { exitCode } = await running.ended;
    clearTimeout(timer);
    expect(exitCode).toBe(0);
  });
});
