import { createHash } from "node:crypto";
import { readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "vitest";
import {
  endOfIndex,
  layOut,
  narInfosOf,
  type ArchiveIndex,
  type IndexedPath,
} from "../../agent/core/formats/archive-index.ts";
import type { ErrorCode } from "../../agent/core/errors.ts";
import { readManifest } from "../../agent/core/formats/manifest.ts";
import { parseSettings } from "../../agent/core/settings.ts";
import { generateKey, parseSecretKey } from "../../agent/core/formats/signing-key.ts";
import { encodeBase32 } from "../../agent/core/formats/store-path.ts";
import { TAR_BLOCK } from "../../agent/core/formats/tar-layout.ts";
import { nixStoreOf } from "../../agent/effects/nix/nix-store.ts";
import { runProcess } from "../../agent/effects/process/subprocess.ts";
import { answerOf } from "../support/answer.ts";
import {
  ELSEWHERE,
  defend,
  honestly,
  servedRelease,
  type Attack,
  type Deed,
} from "../support/attack.ts";
import {
  forgeRelease,
  openArchive,
  resign,
  type Forgery,
  type TarMember,
} from "../support/forged-archive.ts";
import { interruptArchive, parseRange } from "../support/misbehaviours.ts";
import { serveMirror } from "../support/mirror-server.ts";
import { testEnvironment } from "../support/nixos-pull.ts";
import { PAYLOAD_BYTES, publishReleases, type ReleaseSeries } from "../support/release-series.ts";
import { suiteDirectory } from "../support/suite-directory.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const directory = suiteDirectory();
let series: ReleaseSeries;
beforeAll(async () => {
  series = await publishReleases(directory);
});

const stranger = parseSecretKey(generateKey("stranger-1").secret);

/** Release 2's archive with changes that the manifest knows nothing of. */
const damaged =
  (change: (bytes: Buffer, at: Layout) => Buffer): Deed =>
  async ({ mirror }) => {
    const { bytes } = await openArchive(series, mirror, 2);
    await writeFile(mirror.archiveFile(2), change(bytes, layoutOf(bytes)));
  };

/** Release 2 with changes, signed with the real key and with the right size and hashes. */
const forged =
  (forgery: Forgery): Deed =>
  ({ mirror }) =>
    forgeRelease(series, mirror, 2, forgery);

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
    { name: "that climbs out of staging", header: { name: `../../../../../../..${ELSEWHERE}` } },
    { name: "with an absolute name", header: { name: ELSEWHERE } },
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
        { members: (members) => [...members, { header: { name: ELSEWHERE } }] },
      ],
      [
        "a member more, and a size that hides it",
        "ARCHIVE_MEMBER",
        {
          members: (members) => [...members, { header: { name: ELSEWHERE } }],
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
        "a store path that leads ELSEWHERE",
        "INDEX_INVALID",
        firstPath((it) => (it.path = `../../${it.path}`)),
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
        "PATH_SIGNATURE",
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
        soleNar(narWithFile(`../../../../../../..${ELSEWHERE}`)),
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

describe("an archive that was damaged on an HTTP mirror is refused", () => {
  defend(() => series, "http", ARCHIVES);
});
describe("an archive that was damaged in a directory is refused", () => {
  const chosen = ["no archive", "an archive that lacks its last byte", "one bit flipped in a NAR"];
  const attacks = ARCHIVES.filter(({ name }) => chosen.includes(name));
  defend(() => series, "file", attacks);
});
describe("a malicious archive is refused although the real key signed it", () => {
  defend(() => series, "http", FORGERIES);
});

describe("a download that was cut", () => {
  test("is resumed by Range where it stopped", async () => {
    const { mirror, server, host } = await servedRelease(series);
    server.misbehave = interruptArchive(mirror.directory, PAYLOAD_BYTES / 2, "cut").misbehave;
    const cut = await answerOf(host, "apply");
    expect(cut.error?.code).toBe("MIRROR_UNREACHABLE");

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
    const { mirror, server } = await servedRelease(series);
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
    const { mirror, server, host } = await servedRelease(series);
    server.ranges = false;
    server.misbehave = interruptArchive(mirror.directory, PAYLOAD_BYTES / 2, "cut", {
      ranges: false,
    }).misbehave;
    const cut = await answerOf(host, "apply");
    expect(cut.error?.code).toBe("MIRROR_UNREACHABLE");
    server.misbehave = honestly;
    const resumed = await host.run("apply");
    expect(resumed.exitCode, resumed.stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
  });

  test("is not believed where the half that came was changed on disk", async () => {
    const { mirror, server, host } = await servedRelease(series);
    server.misbehave = interruptArchive(mirror.directory, PAYLOAD_BYTES / 2, "cut").misbehave;
    await host.run("apply");
    server.misbehave = honestly;
    const [part] = await filesBelow(host.staging, ".part");
    const bytes = await readFile(part ?? "");
    await writeFile(part ?? "", flipBit(bytes, 1000));
    const refused = await answerOf(host, "apply");
    expect(refused.error?.code).toBe("ARCHIVE_CORRUPT");
    const whole = await host.run("apply");
    expect(whole.exitCode, whole.stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
  });
});

test("a server without ranges serves an update with at most two reads of the archive", async () => {
  const { server, host } = await servedRelease(series);
  server.ranges = false;
  const updated = await host.run("apply");
  expect(updated.exitCode, updated.stderr).toBe(0);
  expect(await host.profileToplevel()).toBe(series.toplevels[2]);
  const archives = server.requests.filter(({ path }) => path.startsWith("/archives/"));
  expect(archives.map(({ status }) => status)).toEqual([200, 200]);
});

test("what a mirror appends to an archive is never read", async () => {
  const target = await servedRelease(series);
  await damaged((bytes) => Buffer.concat([bytes, Buffer.alloc(4096, "garbage")]))(target);
  const updated = await target.host.run("apply");
  expect(updated.exitCode, updated.stderr).toBe(0);
  expect(await target.host.profileToplevel()).toBe(series.toplevels[2]);
});

describe("real Nix, asked directly to import a staged binary cache,", () => {
  /** The import as the agent does it, with the agent's own checks left out. */
  async function importDirectly(forgery: Forgery): Promise<unknown> {
    const mirror = await series.mirror(2);
    await forgeRelease(series, mirror, 2, forgery);
    const trust = { publicKeys: [series.secretKey.publicKey], threshold: 1 };
    const { manifest } = readManifest(await readFile(mirror.manifestFile), trust);
    const cache = await temporaryDirectory();
    const tar = await runProcess(
      "tar",
      [
        "-xf",
        join(mirror.directory, "archives", `${manifest.hosts["web1"]?.archive.sha256}.tar`),
        "-C",
        cache,
      ],
      { env: testEnvironment(), timeoutMs: 60_000 },
    );
    expect(tar.exitCode, tar.stderr).toBe(0);
    const host = await series.host({ mirrors: [mirror.address] });
    const settings = parseSettings(JSON.parse(await readFile(host.configFile, "utf8")), "web1");
    const narInfos = (await readdir(cache)).filter((name) => name.endsWith(".narinfo"));
    const texts = await Promise.all(narInfos.map((name) => readFile(join(cache, name), "utf8")));
    const paths = texts.map((text) => /^StorePath: (.*)$/m.exec(text)?.[1] ?? "");
    return nixStoreOf(settings).importPaths(cache, paths);
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
