import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { access, mkdir, readFile, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "vitest";
import {
  endOfIndex,
  layOut,
  narInfosOf,
  type ArchiveIndex,
  type IndexedPath,
} from "../../agent/core/archive-index.ts";
import {
  RELEASE_PAYLOAD_TYPE,
  preAuthenticationEncoding,
  sealEnvelope,
} from "../../agent/core/envelope.ts";
import { ERROR_KINDS, type ErrorCode } from "../../agent/core/errors.ts";
import { readManifest } from "../../agent/core/manifest.ts";
import { parseSettings } from "../../agent/core/settings.ts";
import { generateKey, parseSecretKey, signBytes } from "../../agent/core/signing-key.ts";
import { encodeBase32 } from "../../agent/core/store-path.ts";
import { TAR_BLOCK } from "../../agent/core/tar-layout.ts";
import { nixStoreOf } from "../../agent/effects/nix-store.ts";
import { runProcess } from "../../agent/effects/subprocess.ts";
import {
  forgeRelease,
  openArchive,
  resign,
  type Forgery,
  type TarMember,
} from "../support/forged-archive.ts";
import { rootsOf, snapshotOf } from "../support/host-snapshot.ts";
import {
  archiveAnswers,
  interruptArchive,
  manifestAnswers,
  manifestStatus,
  neverAnswers,
  parseRange,
} from "../support/misbehaviours.ts";
import { serveMirror, type MirrorServer, type Misbehaviour } from "../support/mirror-server.ts";
import { testEnvironment } from "../support/nixos-pull.ts";
import {
  PAYLOAD_BYTES,
  publishReleases,
  sealManifest,
  type ReleaseSeries,
  type TestMirror,
} from "../support/release-series.ts";
import type { SandboxHost } from "../support/sandbox.ts";
import { suiteDirectory } from "../support/suite-directory.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const directory = suiteDirectory();
let series: ReleaseSeries;
beforeAll(async () => {
  series = await publishReleases(directory);
});

const stranger = parseSecretKey(generateKey("stranger-1").secret);
const second = parseSecretKey(generateKey("second-1").secret);

/** What an attack may bend. */
interface Target {
  readonly mirror: TestMirror;
  /** Null for a mirror in a directory. */
  readonly server: MirrorServer | null;
  readonly host: SandboxHost;
}

interface Attack {
  readonly name: string;
  /** What the host must say; its exit code follows from ERROR_KINDS. */
  readonly code: ErrorCode;
  readonly attack: (target: Target) => Promise<void> | void;
  /** Why the test fails today, where it does. */
  readonly defect?: string;
  /** For manifests: also tried in a directory, where other code reads them. */
  readonly alsoInDirectory?: boolean;
  readonly settings?: () => Record<string, unknown>;
  /** What happened on the host before, beside installing release 1. */
  readonly before?: (target: Target) => Promise<unknown>;
  /** What stays in staging: nothing, or what a later attempt goes on with. */
  readonly staging?: "kept";
  /**
   * The honest release afterwards. Where the hostile one was signed with the real key, the
   * host has accepted its sequence number and only follows a higher one.
   */
  readonly honest?: 2 | 3;
  /** Makes the honest release, where a published one will not do. */
  readonly repair?: (target: Target) => Promise<void>;
}

/** Release 2 as published, with changes, signed with the real key. */
const signed =
  (change: (manifest: any) => void): Attack["attack"] =>
  async ({ mirror }) => {
    const manifest = structuredClone(series.manifests[2]);
    change(manifest);
    await mirror.writeManifest(sealManifest(manifest, series.secretKey));
  };

/** Any text in the manifest's place. */
const text =
  (make: (honest: string) => string | Uint8Array): Attack["attack"] =>
  async ({ mirror }) => {
    await mirror.writeManifest(make(await readFile(mirror.manifestFile, "utf8")));
  };

const envelope = (change: (envelope: any) => void): Attack["attack"] =>
  text((honest) => {
    const value: unknown = JSON.parse(honest);
    change(value);
    return JSON.stringify(value);
  });

/** Release 2's archive with changes that the manifest knows nothing of. */
const damaged =
  (change: (bytes: Buffer, at: Layout) => Buffer): Attack["attack"] =>
  async ({ mirror }) => {
    const { bytes } = await openArchive(series, mirror, 2);
    await writeFile(mirror.archiveFile(2), change(bytes, layoutOf(bytes)));
  };

/** Release 2 with changes, signed with the real key and with the right size and hashes. */
const forged =
  (forgery: Forgery): Attack["attack"] =>
  ({ mirror }) =>
    forgeRelease(series, mirror, 2, forgery);

const twoKeys = (): Record<string, unknown> => ({
  publicKeys: [series.publicKey, second.publicKey.text],
  threshold: 2,
});
const signedByBoth: Attack["repair"] = async ({ mirror }) => {
  await mirror.release(2);
  await mirror.writeManifest(sealManifest(series.manifests[2], series.secretKey, second));
};

const inDays = (days: number): string => new Date(Date.now() + days * 86_400_000).toISOString();

const MANIFESTS: Attack[] = [
  {
    name: "no signature at all",
    code: "SIGNATURE_THRESHOLD",
    attack: envelope((it) => (it.signatures = [])),
    alsoInDirectory: true,
  },
  {
    name: "a signature by a key that is not trusted",
    code: "SIGNATURE_THRESHOLD",
    attack: ({ mirror }) => mirror.writeManifest(sealManifest(series.manifests[2], stranger)),
  },
  {
    name: "a stranger's signature under the trusted key's name",
    code: "SIGNATURE_THRESHOLD",
    attack: ({ mirror }) => {
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
    attack: ({ mirror }) => {
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
    settings: () => ({
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
    attack: ({ mirror }) => {
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
    attack: ({ mirror }) => {
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
    attack: envelope((it) => {
      const manifest = { ...series.manifests[2], sequence: 99 };
      it.payload = Buffer.from(JSON.stringify(manifest)).toString("base64");
    }),
  },
  {
    name: "an unknown field in the envelope",
    code: "ENVELOPE_INVALID",
    attack: envelope((it) => (it.comment = "hello")),
  },
  {
    name: "more signatures than anybody needs",
    code: "ENVELOPE_INVALID",
    attack: envelope((it) => (it.signatures = Array(1000).fill(it.signatures[0]))),
  },
  {
    name: "an unknown field, signed with the real key",
    code: "MANIFEST_INVALID",
    attack: signed((it) => (it.script = "rm -rf /")),
  },
  {
    name: "an unknown field in this host's entry, signed with the real key",
    code: "MANIFEST_INVALID",
    attack: signed((it) => (it.hosts.web1.script = "rm -rf /")),
  },
  {
    name: "a signed payload that is not JSON",
    code: "MANIFEST_INVALID",
    attack: ({ mirror }) =>
      mirror.writeManifest(sealEnvelope(Buffer.from("release 2"), [series.secretKey])),
  },
  {
    name: "a signed toplevel outside of the store",
    code: "MANIFEST_INVALID",
    attack: signed((it) => (it.hosts.web1.toplevel = "/nix/store/../../tmp/evil")),
  },
  {
    name: "a signed archive name that leads out of the mirror",
    code: "MANIFEST_INVALID",
    attack: signed((it) => (it.hosts.web1.archive.sha256 = "../".repeat(21) + "x")),
  },
  {
    name: "an older release once more",
    code: "SEQUENCE_REPLAYED",
    before: ({ host }) => host.run("apply"),
    attack: ({ mirror }) => mirror.release(1),
    honest: 3,
    alsoInDirectory: true,
  },
  {
    name: "the accepted sequence number with other contents",
    code: "SEQUENCE_CONFLICT",
    attack: signed((it) => (it.sequence = 1)),
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
    attack: signed((it) => (it.hosts = { web2: it.hosts.web1 })),
    honest: 3,
  },
  {
    name: "a host called like a property of every object",
    code: "HOST_NOT_IN_RELEASE",
    settings: () => ({ hostname: "constructor" }),
    attack: signed(() => undefined),
    repair: async ({ mirror }) => {
      const { web1 } = series.manifests[3].hosts;
      const manifest = { ...series.manifests[3], hosts: { constructor: web1 } };
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
    alsoInDirectory: true,
  },
  {
    name: "an empty file",
    code: "ENVELOPE_INVALID",
    attack: text(() => ""),
    alsoInDirectory: true,
  },
  {
    name: "JSON that lacks its last byte",
    code: "ENVELOPE_INVALID",
    attack: text((honest) => honest.trimEnd().slice(0, -1)),
    alsoInDirectory: true,
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
    alsoInDirectory: true,
  },
];

const ARCHIVES: Attack[] = [
  {
    name: "no archive",
    code: "MIRROR_NOT_FOUND",
    attack: ({ mirror }) => rm(mirror.archiveFile(2)),
  },
  {
    name: "an archive that lacks its last byte",
    code: "ARCHIVE_TRUNCATED",
    attack: damaged((bytes) => bytes.subarray(0, -1)),
  },
  {
    name: "an archive that ends in a NAR",
    code: "ARCHIVE_TRUNCATED",
    attack: damaged((bytes) => bytes.subarray(0, bytes.length / 2)),
  },
  {
    name: "an archive that ends in its index",
    code: "ARCHIVE_TRUNCATED",
    attack: damaged((bytes) => bytes.subarray(0, TAR_BLOCK + 10)),
  },
  {
    name: "an empty archive",
    code: "ARCHIVE_TRUNCATED",
    attack: damaged(() => Buffer.alloc(0)),
  },
  {
    name: "one bit flipped in a NAR",
    code: "ARCHIVE_CORRUPT",
    attack: damaged((bytes, { nar }) => flipBit(bytes, nar + 1000)),
  },
  {
    name: "one bit flipped in the index",
    code: "ARCHIVE_CORRUPT",
    attack: damaged((bytes) => flipBit(bytes, TAR_BLOCK + 20)),
  },
  {
    name: "one bit flipped in a narinfo",
    code: "NARINFO_MISMATCH",
    attack: damaged((bytes) => flipBit(bytes, bytes.indexOf("NarHash: sha256:") + 30)),
  },
  {
    name: "one bit flipped in a member's header",
    code: "ARCHIVE_MEMBER",
    attack: damaged((bytes, { nar }) => flipBit(bytes, nar - TAR_BLOCK + 5)),
  },
  {
    name: "one bit flipped in the zeros at the end",
    code: "ARCHIVE_MEMBER",
    attack: damaged((bytes) => flipBit(bytes, bytes.length - 1)),
  },
  {
    name: "another release's archive under this one's name",
    code: "ARCHIVE_CORRUPT",
    attack: async ({ mirror }) => {
      await writeFile(mirror.archiveFile(2), await readFile(mirror.archiveFile(3)));
    },
  },
];

const elsewhere = `/tmp/nixos-pull-evil-${process.pid}`;

/** A NAR under another name: everything else, also the archive's size, stays as it was. */
const renamed = (header: TarMember["header"]): Forgery => ({
  members: (members) => {
    const at = members.findIndex((member) => member.header.name.startsWith("nar/"));
    const body = members[at]?.body ?? Buffer.alloc(0);
    return members.with(at, { header, body });
  },
});

/** Members of headers alone in the place of nix-cache-info, which is as long as two of them. */
const headersOnly = (header: TarMember["header"]): Forgery => ({
  members: (members) => members.toSpliced(0, 1, { header }, { header }),
});

const firstPath = (change: (path: IndexedPath, index: ArchiveIndex) => void): Forgery => ({
  index: (index) => {
    const [path] = index.paths;
    if (path) change(path, index);
  },
});

const sizeTold = (size: number): NonNullable<Forgery["entry"]> => {
  return (entry) => ({ ...entry, archive: { ...entry.archive, size: entry.archive.size + size } });
};

/** A NAR (Nix manual, "Nix Archive format") of a directory with one file of any name. */
function narWithFile(name: string): Buffer {
  const words = ["nix-archive-1", "(", "type", "directory", "entry", "(", "name", name, "node"];
  words.push("(", "type", "regular", "contents", "evil", ")", ")", ")");
  return Buffer.concat(
    words.map((word) => {
      const bytes = Buffer.alloc(8 + Math.ceil(word.length / 8) * 8);
      bytes.writeBigUInt64LE(BigInt(word.length));
      bytes.write(word, 8, "latin1");
      return bytes;
    }),
  );
}

/** Release 2 of one path, which is this NAR, uncompressed. */
const soleNar = (nar: Buffer): Forgery => {
  const sha256 = createHash("sha256").update(nar).digest();
  const hex = sha256.toString("hex");
  return {
    index: (index) => {
      const path = index.paths.at(-1);
      if (!path) return;
      index.compression = "none";
      index.paths = [path];
      path.references = [];
      path.narHash = `sha256:${encodeBase32(sha256)}`;
      path.narSize = nar.length;
      path.nar = { offset: 0, size: nar.length, sha256: hex };
      resign(index, path, series.secretKey);
      // After nix-cache-info and one narinfo.
      const [first, info, last] = layOut(narInfosOf(index), 0);
      path.nar.offset = (last?.headerOffset ?? 0) + TAR_BLOCK - endOfIndex(0);
      expect([first, info, last]).not.toContain(undefined);
    },
    nars: new Map([[hex, nar]]),
    entry: (entry) => ({ ...entry, closureSize: nar.length }),
  };
};

/** What a malicious or buggy holder of the real key could publish. */
const FORGERIES: Attack[] = [
  ...[
    { name: "that climbs out of staging", header: { name: `../../../../../../..${elsewhere}` } },
    { name: "with an absolute name", header: { name: elsewhere } },
    { name: "whose name is `..`", header: { name: ".." } },
    { name: "that the index does not name", header: { name: "nar/stranger.nar.zst" } },
  ].map(({ name, header }) => ({ name, forgery: renamed(header) })),
  ...[
    { name: "that is a symbolic link", type: "symlink" as const },
    { name: "that is a hard link", type: "link" as const },
    { name: "that is a directory", type: "directory" as const },
    { name: "that is a device", type: "block-device" as const },
    { name: "that is a FIFO", type: "fifo" as const },
  ].map(({ name, type }) => ({
    name,
    forgery: headersOnly({ name: "nar/link", type, linkname: "/etc/passwd" }),
  })),
  {
    name: "that is there twice",
    forgery: {
      members: (members: TarMember[]) => {
        const [first, ...nars] = members.filter(({ header }) => header.name.startsWith("nar/"));
        const at = members.indexOf(nars[0]!);
        return members.with(at, { ...first, body: nars[0]?.body } as TarMember);
      },
    },
  },
].map(({ name, forgery }): Attack => ({
  name: `a tar member ${name}`,
  code: "ARCHIVE_MEMBER",
  attack: forged(forgery),
  honest: 3,
}));

FORGERIES.push(
  ...(
    [
      [
        "a member more than the index has",
        "INDEX_INVALID",
        { members: (members) => [...members, { header: { name: elsewhere } }] },
      ],
      [
        "a member more, and a size that hides it",
        "ARCHIVE_MEMBER",
        {
          members: (members) => [...members, { header: { name: elsewhere } }],
          entry: sizeTold(-TAR_BLOCK),
        },
      ],
      [
        "a name that needs a pax header, and a size that hides it",
        "ARCHIVE_MEMBER",
        {
          ...renamed({ name: `nar/${"x".repeat(300)}` }),
          entry: sizeTold(-2 * TAR_BLOCK),
        },
      ],
      [
        "garbage after the end that the manifest's size includes",
        "INDEX_INVALID",
        { bytes: (archive) => Buffer.concat([archive, Buffer.alloc(4096, "garbage")]) },
      ],
      ["a reference to a later path", "INDEX_INVALID", firstPath((it) => (it.references = [1]))],
      ["a reference to no path", "INDEX_INVALID", firstPath((it) => (it.references = [999]))],
      ["a wrong offset", "INDEX_INVALID", firstPath((it) => (it.nar.offset += TAR_BLOCK))],
      ["a wrong NAR size", "INDEX_INVALID", firstPath((it) => (it.narSize += 1))],
      ["a wrong file size", "INDEX_INVALID", firstPath((it) => (it.nar.size += TAR_BLOCK))],
      [
        "a path twice",
        "INDEX_INVALID",
        firstPath((it, index) => index.paths.splice(1, 0, structuredClone(it))),
      ],
      [
        "another toplevel at the end",
        "INDEX_INVALID",
        { entry: (entry) => ({ ...entry, toplevel: series.toplevels[3] }) },
      ],
      [
        "a wrong closure size",
        "INDEX_INVALID",
        { entry: (entry) => ({ ...entry, closureSize: entry.closureSize - 1 }) },
      ],
      [
        "a store path that leads elsewhere",
        "INDEX_INVALID",
        firstPath((it) => (it.path = `../../${it.path}`)),
      ],
      [
        "an unknown field",
        "INDEX_INVALID",
        { index: (index) => Object.assign(index, { script: "rm -rf /" }) },
      ],
      [
        "a newer index format",
        "FORMAT_UNSUPPORTED",
        { index: (index) => Object.assign(index, { formatVersion: 2 }) },
      ],
      ["an index that is no gzip", "INDEX_INVALID", { encode: () => Buffer.from("[]") }],
      ["an index that is no JSON", "INDEX_INVALID", { encode: () => gzipSync("index") }],
      [
        "an index that unpacks to a gigabyte",
        "INDEX_INVALID",
        { encode: () => gzipBomb(1024 ** 3) },
      ],
      [
        "a narinfo that disagrees with the index",
        "NARINFO_MISMATCH",
        {
          members: (members) =>
            members.map((member) =>
              member.header.name.endsWith(".narinfo")
                ? {
                    ...member,
                    body: swapText(member.body, "Compression: zstd", "Compression: none"),
                  }
                : member,
            ),
        },
      ],
      [
        "a nix-cache-info for another store",
        "NARINFO_MISMATCH",
        {
          members: ([info, ...members]) => [
            { header: { name: "nix-cache-info" }, body: swapText(info?.body, "/nix", "/evi") },
            ...members,
          ],
        },
      ],
      [
        "a store path that only another key signed",
        "PATH_SIGNATURE",
        firstPath((it, index) => {
          resign(index, it, stranger);
        }),
      ],
      [
        "a store path that nobody signed",
        "PATH_SIGNATURE",
        firstPath((it) => (it.signatures = [])),
      ],
      [
        "a store path with the signature of another",
        "PATH_SIGNATURE",
        firstPath((it, index) => (it.signatures = index.paths[1]?.signatures ?? [])),
      ],
      [
        "an unsigned store path that claims to be content-addressed",
        "IMPORT_FAILED",
        firstPath((it) => Object.assign(it, { signatures: [], ca: `fixed:r:${it.narHash}` })),
      ],
      [
        "a NAR that is not the one that was signed, though its file has its hash",
        "IMPORT_FAILED",
        firstPath((it, index) => {
          it.narHash = index.paths[1]?.narHash ?? "";
          resign(index, it, series.secretKey);
        }),
      ],
      [
        "a NAR of another size than was signed",
        "IMPORT_FAILED",
        {
          ...firstPath((it, index) => {
            it.narSize += 8;
            resign(index, it, series.secretKey);
          }),
          entry: (entry) => ({ ...entry, closureSize: entry.closureSize + 8 }),
        },
      ],
      [
        "a NAR with a file name that climbs",
        "IMPORT_FAILED",
        soleNar(narWithFile(`../../../../../../..${elsewhere}`)),
      ],
      ["a NAR that is none", "IMPORT_FAILED", soleNar(Buffer.from("no NAR"))],
      [
        "a toplevel that cannot be activated",
        "NOT_A_SYSTEM",
        soleNar(narWithFile("nothing-to-switch-to")),
      ],
    ] satisfies [string, ErrorCode, Forgery][]
  ).map(([name, code, forgery]): Attack => ({
    name: `an archive with ${name}`,
    code,
    attack: forged(forgery),
    honest: 3,
  })),
);

const quick = (): Record<string, unknown> => ({ limits: { stallTimeout: "1s" } });

/** Puts a misbehaviour into the HTTP server. */
const serves =
  (make: (target: Target) => Misbehaviour): Attack["attack"] =>
  (target) => {
    if (target.server) target.server.misbehave = make(target);
  };

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
  (what: (target: Target) => string, make: (path: string) => Promise<unknown>): Attack["attack"] =>
  async (target) => {
    const path = what(target);
    await rm(path, { recursive: true, force: true });
    await make(path);
  };
const manifestOf = ({ mirror }: Target): string => mirror.manifestFile;
const archiveOf = ({ mirror }: Target): string => mirror.archiveFile(2);
const fifo = (path: string): Promise<unknown> =>
  runProcess("mkfifo", [path], { env: testEnvironment(), timeoutMs: 10_000 });

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
    name: "a manifest that cannot be opened",
    code: "IO_FAILED",
    attack: replaced(manifestOf, (path) => symlink(path, path)),
  },
  { name: "a FIFO as archive", code: "MIRROR_STATUS", attack: replaced(archiveOf, fifo) },
  {
    name: "a directory as archive",
    code: "MIRROR_STATUS",
    attack: replaced(archiveOf, (path) => mkdir(path)),
  },
  {
    name: "an archive that cannot be opened",
    code: "IO_FAILED",
    attack: replaced(archiveOf, (path) => symlink(path, path)),
  },
];

const honestly: Misbehaviour = () => false;

/** One host, attacked at release 1, untouched, and then brought to the honest release. */
async function withstand(transport: "http" | "file", attack: Attack): Promise<void> {
  const mirror = await series.mirror(attack.before ? 2 : 1);
  const server = transport === "http" ? await serveMirror(mirror.directory) : null;
  const mirrors = [server?.url ?? mirror.address];
  const host = await series.host({ mirrors, ...attack.settings?.() });
  const target: Target = { mirror, server, host };
  await attack.before?.(target);
  const before = await snapshotOf(host);

  await mirror.release(2);
  await attack.attack(target);
  const attempt = await host.json("apply");
  expect(attempt.value.error, "the host took it").not.toBeNull();
  expect(attempt.value.error.code, attempt.value.error.message).toBe(attack.code);
  expect(attempt.exitCode).toBe(ERROR_KINDS[attack.code].exit);
  expect(attempt.value.updated).toBe(false);
  expect(await snapshotOf(host)).toEqual(before);
  expect(await host.stagingIsClean()).toBe(attack.staging !== "kept");
  await expect(access(elsewhere)).rejects.toThrow("ENOENT");

  if (server) server.misbehave = honestly;
  const sequence = attack.honest ?? 2;
  await (attack.repair?.(target) ?? mirror.release(sequence));
  const honest = await host.run("apply");
  expect(honest.exitCode, honest.stderr).toBe(0);
  expect(await host.profileToplevel()).toBe(series.toplevels[sequence]);
  expect(await host.stagingIsClean()).toBe(true);
  expect(await rootsOf(host)).toEqual({
    current: series.toplevels[sequence],
    previous: before.profile,
  });
}

function defend(transport: "http" | "file", attacks: readonly Attack[]): void {
  for (const attack of attacks) {
    const define = attack.defect === undefined ? test : test.fails;
    define(`${attack.name}: ${attack.code}`, () => withstand(transport, attack));
  }
}

describe("a hostile manifest over HTTP is refused", () => {
  defend("http", MANIFESTS);
});
describe("a hostile manifest in a directory is refused", () => {
  defend(
    "file",
    MANIFESTS.filter(({ alsoInDirectory }) => alsoInDirectory),
  );
});
describe("an archive that was damaged on an HTTP mirror is refused", () => {
  defend("http", ARCHIVES);
});
describe("an archive that was damaged in a directory is refused", () => {
  defend("file", ARCHIVES);
});
describe("a malicious archive is refused although the real key signed it", () => {
  defend("http", FORGERIES);
});
describe("a misbehaving HTTP server does no harm", () => {
  defend("http", HTTP);
});
describe("a directory that is not what it should be does no harm", () => {
  defend("file", DIRECTORY);
});

/** A mirror at release 2 over HTTP and a host at release 1. */
async function servedRelease(): Promise<Target & { server: MirrorServer }> {
  const mirror = await series.mirror(2);
  const server = await serveMirror(mirror.directory);
  return { mirror, server, host: await series.host({ mirrors: [server.url] }) };
}

describe("a download that was cut", () => {
  test("is resumed by Range where it stopped", async () => {
    const { mirror, server, host } = await servedRelease();
    server.misbehave = interruptArchive(mirror.directory, PAYLOAD_BYTES / 2, "cut").misbehave;
    const cut = await host.json("apply");
    expect(cut.value.error.code).toBe("MIRROR_UNREACHABLE");

    server.misbehave = honestly;
    const before = server.requests.length;
    const resumed = await host.run("apply");
    expect(resumed.exitCode, resumed.stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
    const ranges = server.requests
      .slice(before)
      .filter(({ path }) => path.startsWith("/archives/"))
      .map(({ range, status }) => ({ status, ...parseRange(range) }));
    expect(ranges.map(({ status }) => status)).toEqual(ranges.map(() => 206));
    const asked = ranges.reduce((sum, { from = 0, to = Infinity }) => sum + to + 1 - from, 0);
    expect(asked).toBeLessThan(PAYLOAD_BYTES * 0.6);
  });

  test("is finished by another mirror", async () => {
    const { mirror, server, host: _ } = await servedRelease();
    const other = await serveMirror((await series.mirror(2)).directory);
    const host = await series.host({ mirrors: [server.url, other.url] });
    server.misbehave = interruptArchive(mirror.directory, PAYLOAD_BYTES / 2, "cut").misbehave;
    const updated = await host.run("apply");
    expect(updated.exitCode, updated.stderr).toBe(0);
    const ranges = other.requests.flatMap(({ range }) => parseRange(range) ?? []);
    expect(ranges.reduce((sum, { from, to }) => sum + to + 1 - from, 0)).toBeLessThan(
      PAYLOAD_BYTES * 0.6,
    );
  });

  test("starts from the beginning at a server without ranges, and still ends well", async () => {
    const { mirror, server, host } = await servedRelease();
    server.ranges = false;
    server.misbehave = interruptArchive(mirror.directory, PAYLOAD_BYTES / 2, "cut", {
      ranges: false,
    }).misbehave;
    const cut = await host.json("apply");
    expect(cut.value.error.code).toBe("MIRROR_UNREACHABLE");
    server.misbehave = honestly;
    const resumed = await host.run("apply");
    expect(resumed.exitCode, resumed.stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
  });

  test("is not believed where the half that came was changed on disk", async () => {
    const { mirror, server, host } = await servedRelease();
    server.misbehave = interruptArchive(mirror.directory, PAYLOAD_BYTES / 2, "cut").misbehave;
    await host.run("apply");
    server.misbehave = honestly;
    const [part] = await filesBelow(host.staging, ".part");
    const bytes = await readFile(part ?? "");
    await writeFile(part ?? "", flipBit(bytes, 1000));
    const refused = await host.json("apply");
    expect(refused.value.error.code).toBe("ARCHIVE_CORRUPT");
    const whole = await host.run("apply");
    expect(whole.exitCode, whole.stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
  });
});

test("a server without ranges serves an update with at most two reads of the archive", async () => {
  const { server, host } = await servedRelease();
  server.ranges = false;
  const updated = await host.run("apply");
  expect(updated.exitCode, updated.stderr).toBe(0);
  expect(await host.profileToplevel()).toBe(series.toplevels[2]);
  const archives = server.requests.filter(({ path }) => path.startsWith("/archives/"));
  expect(archives.map(({ status }) => status)).toEqual([200, 200]);
});

test("what a mirror appends to an archive is never read", async () => {
  const { mirror, host } = await servedRelease();
  await damaged((bytes) => Buffer.concat([bytes, Buffer.alloc(4096, "garbage")]))({
    mirror,
    host,
    server: null,
  });
  const updated = await host.run("apply");
  expect(updated.exitCode, updated.stderr).toBe(0);
  expect(await host.profileToplevel()).toBe(series.toplevels[2]);
});

test("a manifest behind five honest redirects is followed", async () => {
  const { server, host } = await servedRelease();
  let hops = 0;
  server.misbehave = (request, response) => {
    const [path = ""] = request.url?.split("?") ?? [];
    if (!path.includes("/channels/") || hops === 5) return false;
    response.writeHead(308, { location: `${path}?hop=${++hops}` }).end();
    return true;
  };
  const updated = await host.run("apply");
  expect(updated.exitCode, updated.stderr).toBe(0);
  expect(hops).toBe(5);
});

describe("real Nix, asked directly to import a staged binary cache,", () => {
  /** The import as the agent does it, with the agent's own checks left out. */
  async function importDirectly(forgery: Forgery): Promise<unknown> {
    const mirror = await series.mirror(2);
    await forgeRelease(series, mirror, 2, forgery);
    const { archive } = readManifest(await readFile(mirror.manifestFile), {
      publicKeys: [series.secretKey.publicKey],
      threshold: 1,
    }).manifest.hosts["web1"]!;
    const cache = await temporaryDirectory();
    const tar = await runProcess(
      "tar",
      ["-xf", join(mirror.directory, "archives", `${archive.sha256}.tar`), "-C", cache],
      { env: testEnvironment(), timeoutMs: 10_000 },
    );
    expect(tar.exitCode, tar.stderr).toBe(0);
    const host = await series.host({ mirrors: [mirror.address] });
    const settings = parseSettings(JSON.parse(await readFile(host.configFile, "utf8")), "web1");
    return nixStoreOf(settings).importClosure(cache, series.toplevels[2]);
  }

  test("takes the honest one", async () => {
    await expect(importDirectly({})).resolves.toBeUndefined();
  });

  test.each<[string, (path: IndexedPath, index: ArchiveIndex) => void]>([
    ["that nobody signed", (path) => (path.signatures = [])],
    [
      "that only another key signed",
      (path, index) => {
        resign(index, path, stranger);
      },
    ],
    [
      "with another path's signature",
      (path, index) => (path.signatures = index.paths[1]?.signatures ?? []),
    ],
    [
      "with another NAR hash",
      (path, index) => {
        path.narHash = index.paths[1]?.narHash ?? "";
        resign(index, path, series.secretKey);
      },
    ],
  ])("refuses a path %s", async (_, change) => {
    await expect(importDirectly(firstPath(change))).rejects.toMatchObject({
      code: "IMPORT_FAILED",
    });
  });
});

describe("of two mirrors", () => {
  /** Two mirrors over HTTP, changed as the test says, and a host at release 1 that asks both. */
  async function two(
    first: (target: Target) => Promise<void> | void,
    settings: Record<string, unknown> = {},
  ): Promise<{ host: SandboxHost; servers: [MirrorServer, MirrorServer] }> {
    const [bad, good] = [await series.mirror(2), await series.mirror(2)];
    const servers: [MirrorServer, MirrorServer] = [
      await serveMirror(bad.directory),
      await serveMirror(good.directory),
    ];
    const host = await series.host({ mirrors: servers.map(({ url }) => url), ...settings });
    await first({ mirror: bad, server: servers[0], host });
    return { host, servers };
  }

  test.each<Attack>([
    ...MANIFESTS.filter(({ name }) => ["an HTML page", "an empty file"].includes(name)),
    ...HTTP.filter(({ name }) =>
      /^(HTTP 500|no answer|half an archive|a redirect to its)/.test(name),
    ),
    ...ARCHIVES.filter(({ name }) => /^(no archive|one bit|an archive that ends in a)/.test(name)),
  ])("the second is used where the first gives $name", async ({ attack, settings }) => {
    const { host } = await two(attack, settings?.());
    const updated = await host.run("apply");
    expect(updated.exitCode, updated.stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
    expect(await host.stagingIsClean()).toBe(true);
  });

  test("the one that is ahead wins over a stale one before it", async () => {
    const { host } = await two(({ mirror }) => mirror.release(1));
    const updated = await host.json("apply");
    expect(updated).toMatchObject({ exitCode: 0, value: { updated: true } });
    expect(updated.value.mirrors.map(({ sequence }: any) => sequence)).toEqual([1, 2]);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
  });

  test("one that is behind what was accepted is refused and named, and harms nothing", async () => {
    const { host } = await two(() => undefined);
    await host.run("apply");
    const { host: __, servers: _ } = { host, servers: null };
    const stale = await series.mirror(1);
    const config = JSON.parse(await readFile(host.configFile, "utf8"));
    config.mirrors[0] = stale.address;
    await writeFile(host.configFile, JSON.stringify(config));
    const again = await host.json("apply");
    expect(again).toMatchObject({ exitCode: 0, value: { updated: false, decision: "active" } });
    expect(again.value.mirrors[0].code).toBe("SEQUENCE_REPLAYED");
  });

  test("a stick and a server do as well as two servers", async () => {
    const stick = await series.mirror(1);
    await rm(stick.manifestFile);
    const server = await serveMirror((await series.mirror(2)).directory);
    const host = await series.host({ mirrors: [stick.address, server.url] });
    const updated = await host.run("apply");
    expect(updated.exitCode, updated.stderr).toBe(0);
    // The stick has the archive, though no manifest, and stands first.
    expect(server.requests.some(({ path }) => path.startsWith("/archives/"))).toBe(false);
  });

  // DESIGN, "What can go wrong": a slow mirror meets a rate floor, then the next mirror.
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
    const timer = setTimeout(() => running.child.kill("SIGKILL"), 8_000);
    const { exitCode } = await running.ended;
    clearTimeout(timer);
    expect(exitCode).toBe(0);
  });
});

interface Layout {
  /** Offset of the first NAR's contents. */
  readonly nar: number;
}

function layoutOf(bytes: Buffer): Layout {
  // The first header whose name starts like a NAR's.
  for (let at = 0; at < bytes.length; at += TAR_BLOCK) {
    if (bytes.toString("latin1", at, at + 4) === "nar/") return { nar: at + TAR_BLOCK };
  }
  throw new Error("no NAR in this archive");
}

function flipBit(bytes: Buffer, at: number): Buffer {
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return bytes;
}

function swapText(bytes: Uint8Array | undefined, from: string, to: string): Buffer {
  return Buffer.from(
    Buffer.from(bytes ?? [])
      .toString("latin1")
      .replace(from, to),
    "latin1",
  );
}

/** A small gzip file that unpacks to `size` zero bytes. */
function gzipBomb(size: number): Buffer {
  // Members of one gzip file are unpacked one after another (RFC 1952, section 2.2).
  const piece = gzipSync(Buffer.alloc(16 * 1024 ** 2));
  return Buffer.concat(Array<Buffer>(size / (16 * 1024 ** 2)).fill(piece));
}

async function filesBelow(path: string, ending: string): Promise<string[]> {
  const names = await readdir(path, { recursive: true });
  return names.filter((name) => name.endsWith(ending)).map((name) => join(path, name));
}
