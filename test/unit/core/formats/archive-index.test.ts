import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  MAX_INDEX_BYTES,
  archiveIndexSchema,
  archiveSize,
  encodeIndex,
  endOfIndex,
  isNarMember,
  layOut,
  narInfosOf,
  narMembersOf,
  ownNarInfosOf,
  readIndex,
  readPatchedIndex,
  type ArchiveIndex,
} from "../../../../agent/core/formats/archive-index.ts";
import type { Release } from "../../../../agent/core/formats/manifest.ts";
import { failureOf } from "../../../support/failure.ts";
import {
  SAMPLE_KEY,
  chainArchive,
  compressIndex,
  releaseOfIndex,
  sampleArchive,
  sampleArchives,
  type SampleArchive,
} from "../../../support/sample-archive.ts";
import { samplePath } from "../../../support/sample-release.ts";
import { takesAt } from "../../../support/schema-bounds.ts";
import { testKey } from "../../../support/test-key.ts";

const TRUSTED = [SAMPLE_KEY.publicKey];

// Every run signs and verifies a whole archive.
fc.configureGlobal({ numRuns: 40 });

describe("any valid index", () => {
  test("is encoded and read back as it was", () => {
    fc.assert(
      fc.property(sampleArchives, ({ index, bytes, release }) => {
        const compressed = encodeIndex(index);
        expect(encodeIndex(structuredClone(index)).equals(compressed)).toBe(true);
        const afterIndex = bytes.length - endOfIndex(release.archive.index.size);
        const contents = readIndex(
          compressed,
          releaseOfIndex(index, compressed, afterIndex),
          TRUSTED,
        );
        expect(contents.index).toEqual(index);
        expect(contents.size).toBe(endOfIndex(compressed.length) + afterIndex);
      }),
    );
  });

  test("gives members that lie in the archive where it says, in that order and without gaps", () => {
    fc.assert(
      fc.property(sampleArchives, ({ compressed, bytes, release, nars }) => {
        const contents = readIndex(compressed, release, TRUSTED);
        let at = endOfIndex(compressed.length);
        for (const member of contents.members) {
          expect(member.headerOffset).toBe(at);
          const data = bytes.subarray(at + 512, at + 512 + member.size);
          const name = bytes.toString("latin1", at, at + 100).replace(/\0+$/, "");
          expect(name).toBe(member.name);
          if (member.body.kind === "bytes") expect(data.equals(member.body.bytes)).toBe(true);
          else expect(hash(data)).toBe(member.body.sha256);
          at += 512 + Math.ceil(member.size / 512) * 512;
        }
        expect(at + 1024).toBe(bytes.length);
        expect(contents.size).toBe(bytes.length);
        const narNames = contents.members.filter(isNarMember).map(({ name }) => name);
        expect(narNames).toEqual([...nars.keys()]);
      }),
    );
  });

  test("says where every path's NAR lies", () => {
    fc.assert(
      fc.property(sampleArchives, ({ index, compressed, bytes }) => {
        for (const { nar } of index.paths) {
          const from = endOfIndex(compressed.length) + nar.offset;
          expect(hash(bytes.subarray(from, from + nar.size))).toBe(nar.sha256);
        }
      }),
    );
  });

  test("stands for narinfos whose references are names, sorted", () => {
    fc.assert(
      fc.property(sampleArchives, ({ index }) => {
        for (const [at, info] of narInfosOf(index).entries()) {
          const entry = index.paths[at];
          expect(info.storePath).toBe(entry?.path);
          const names = entry?.references.map((position) => index.paths[position]?.path ?? "?");
          expect(info.references).toEqual(names?.sort());
          expect(info).toMatchObject({ fileSize: entry?.nar.size, narSize: entry?.narSize });
        }
      }),
    );
  });

  test("is laid out alike whatever its compressed size, but for a shift", () => {
    fc.assert(
      fc.property(sampleArchives, fc.nat({ max: 5_000 }), ({ index }, size) => {
        const [here, there] = [layOut(narInfosOf(index), size), layOut(narInfosOf(index), 0)];
        const shift = endOfIndex(size) - endOfIndex(0);
        expect(here.map(({ headerOffset }) => headerOffset - shift)).toEqual(
          there.map(({ headerOffset }) => headerOffset),
        );
        expect(archiveSize(here, size) - shift).toBe(archiveSize(there, 0));
      }),
    );
  });
});

test("an archive of nothing is its index and two zero blocks", () => {
  expect(archiveSize([], 1)).toBe(512 + 512 + 1024);
  expect(archiveSize([], 512)).toBe(512 + 512 + 1024);
  expect(archiveSize([], 513)).toBe(512 + 1024 + 1024);
});

test("paths of the same contents share one NAR", () => {
  const nar = new Uint8Array(100).fill(9);
  const { index, compressed, release } = sampleArchive([
    { name: "a", references: [], nar },
    { name: "b", references: [], nar },
  ]);
  const contents = readIndex(compressed, release, TRUSTED);
  expect(contents.members.filter(isNarMember)).toHaveLength(1);
  expect(index.paths[0]?.nar).toEqual(index.paths[1]?.nar);
});

describe("NARs in other archives", () => {
  const archive = chainArchive();
  const other = { sha256: "ab".repeat(32), size: 10_240 };
  const another = { sha256: "cd".repeat(32), size: 10_240 };

  /** The chain with its first two NARs elsewhere; `change` may spoil it. */
  function read(change: (index: ArchiveIndex) => unknown = () => undefined) {
    const index = structuredClone(archive.index);
    index.archives = [other, another];
    const [first, second, third] = index.paths;
    if (!first || !second || !third) throw new Error("no paths");
    first.nar = { ...first.nar, archive: 0, offset: 2048 };
    second.nar = { ...second.nar, archive: 0, offset: 4096 };
    third.nar.offset = 0;
    for (const member of layOut(ownNarInfosOf(index), 0).filter(isNarMember)) {
      third.nar.offset = member.headerOffset + 512 - endOfIndex(0);
    }
    change(index);
    const compressed = compressIndex(index);
    const size = archiveSize(layOut(ownNarInfosOf(index), 0), 0) - endOfIndex(0);
    return readIndex(compressed, releaseOfIndex(index, compressed, size), TRUSTED);
  }
  const nar = (at: number, change: (nar: ArchiveIndex["paths"][number]["nar"]) => void) => {
    return (index: ArchiveIndex) => {
      const entry = index.paths[at];
      if (entry) change(entry.nar);
    };
  };

  test("are found there, and the rest of the archive is laid out without them", () => {
    const contents = read();
    expect(contents.elsewhere.map(({ archive: it }) => it)).toEqual([other, another]);
    expect(contents.elsewhere[0]?.nars.map(({ headerOffset }) => headerOffset)).toEqual([
      1536, 3584,
    ]);
    expect(contents.members.filter(isNarMember)).toHaveLength(1);
    expect(contents.members.filter(({ name }) => name.endsWith(".narinfo"))).toHaveLength(1);
    expect(narMembersOf(contents)).toHaveLength(3);
    expect(contents.narInfos).toHaveLength(3);
  });

  test.each<[string, (index: ArchiveIndex) => unknown, string]>([
    ["an archive that is not listed", nar(0, (it) => (it.archive = 2)), "found number 2"],
    ["a negative archive", nar(0, (it) => (it.archive = -1)), "paths[0].nar.archive"],
    ["an archive that is listed twice", (it) => (it.archives = [other, other]), "archive twice"],
    ["no block of the archive", nar(0, (it) => (it.offset = 2049)), "at a block"],
    ["no room for its header", nar(0, (it) => (it.offset = 0)), "at a block"],
    ["the archive's end", nar(0, (it) => (it.offset = 9728)), "at a block"],
    ["another NAR", nar(1, (it) => (it.offset = 2560)), "lies in another NAR"],
    ["another NAR's very place", nar(1, (it) => (it.offset = 2048)), "lies in another NAR"],
    [
      "two places",
      (index) => {
        const [first, second] = index.paths;
        if (first && second) second.nar = { ...first.nar, archive: 1 };
      },
      "lies at two places",
    ],
  ])("are refused at %s", (_, change, message) => {
    const failure = failureOf(() => read(change));
    expect(failure.code).toBe("INDEX_INVALID");
    expect(failure.message).toContain(message);
  });
});

describe("an index is refused", () => {
  const archive = chainArchive();

  /** Reads a changed index under a release that pins it, so that nothing but the change is wrong. */
  function refused(
    change: (index: ArchiveIndex) => unknown,
    release: Partial<Release> = {},
    keys = TRUSTED,
  ) {
    const index = structuredClone(archive.index);
    const changed = change(index) ?? index;
    const compressed = compressIndex(changed);
    const afterIndex = archive.bytes.length - endOfIndex(archive.compressed.length);
    const pinned = releaseOfIndex(archive.index, compressed, afterIndex);
    return failureOf(() => readIndex(compressed, { ...pinned, ...release }, keys));
  }

  type Entry = ArchiveIndex["paths"][number];
  const entry = (at: number, change: (entry: Entry) => void) => (index: ArchiveIndex) => {
    const found = index.paths[at];
    if (!found) throw new Error(`no path ${at}`);
    change(found);
  };

  test("where a byte of it differs from what the manifest pinned", () => {
    const { compressed, release } = archive;
    fc.assert(
      fc.property(fc.nat({ max: compressed.length - 1 }), (at) => {
        const altered = Buffer.from(compressed);
        altered[at] = (altered[at] ?? 0) ^ 1;
        expect(failureOf(() => readIndex(altered, release, TRUSTED)).code).toBe("ARCHIVE_CORRUPT");
      }),
      { numRuns: 20 },
    );
    const cut = compressed.subarray(0, -1);
    const failure = failureOf(() => readIndex(cut, release, TRUSTED));
    expect(failure.code).toBe("ARCHIVE_CORRUPT");
    expect(failure.message).toContain(release.archive.index.sha256);
    expect(failure.message).toContain(hash(cut));
  });

  test.each<[string, (index: ArchiveIndex) => unknown, string]>([
    ["with swapped paths", (index) => void index.paths.reverse(), "ascending references"],
    ["with a forward reference", entry(0, (it) => (it.references = [1])), "found 1"],
    ["with a reference beyond its end", entry(2, (it) => (it.references = [99])), "found 99"],
    ["with references in disorder", entry(2, (it) => (it.references = [1, 0])), "found 1, 0"],
    ["with a reference twice", entry(2, (it) => (it.references = [0, 0])), "found 0, 0"],
    ["with a negative reference", entry(2, (it) => (it.references = [-1])), "references[0]"],
    ["with half a reference", entry(2, (it) => (it.references = [0.5])), "references[0]"],
    ["with a path twice", (index) => void index.paths.splice(1, 0, must(index.paths[0])), "twice"],
    [
      "with two paths of one hash",
      (index) => {
        const [first, second] = index.paths;
        if (first && second) second.path = `${first.path.slice(0, 32)}-other`;
      },
      "stands in it twice",
    ],
    ["with another toplevel", (index) => void index.paths.pop(), "as the last path"],
    ["with no path", (index) => void index.paths.splice(0), "paths: expected at least one path"],
    ["with a wrong offset", entry(1, (it) => (it.nar.offset += 512)), "expected its NAR at offset"],
    ["with a negative offset", entry(1, (it) => (it.nar.offset = -512)), "paths[1].nar.offset"],
    ["with the offset of another", entry(1, (it) => (it.nar.offset = 0)), "expected its NAR at"],
    ["with a wrong size", entry(0, (it) => (it.nar.size += 512)), "expected its NAR at offset"],
    ["with a wrong size at its end", entry(2, (it) => (it.nar.size += 512)), "adds up to"],
    ["with a size of zero", entry(0, (it) => (it.nar.size = 0)), "paths[0].nar.size"],
    ["with a size beyond exact numbers", entry(0, (it) => (it.nar.size = 2 ** 53)), "nar.size"],
    ["with a negative NAR size", entry(0, (it) => (it.narSize = -1)), "paths[0].narSize"],
    ["with another NAR size", entry(0, (it) => (it.narSize += 1)), "NAR sizes of"],
    ["with a hash that is no hash", entry(0, (it) => (it.nar.sha256 = "../x")), "nar.sha256"],
    [
      "with a NAR hash in hex",
      entry(0, (it) => (it.narHash = `sha256:${"a".repeat(64)}`)),
      "narHash",
    ],
    [
      "with a path that leads upwards",
      entry(0, (it) => (it.path = "../../etc/passwd")),
      "[0].path",
    ],
    ["with an absolute path", entry(0, (it) => (it.path = samplePath("x"))), "paths[0].path"],
    [
      "with a signature of two lines",
      entry(0, (it) => it.signatures.push("a:b\nCA: x")),
      "NAME:BASE64",
    ],
    [
      "with a content address of two lines",
      entry(0, (it) => (it.ca = "text:sha256:0\nSig: x")),
      "ca: ",
    ],
    ["with an unknown compression", (index) => ({ ...index, compression: "br" }), "compression: "],
    ["with an unknown field", (index) => ({ ...index, delta: [] }), "expected only the keys"],
    [
      "with an unknown field of a path",
      (index) => ({ ...index, paths: index.paths.map((it) => ({ ...it, deriver: "x" })) }),
      'paths[0]: unknown key "deriver"',
    ],
    [
      "with an unknown field of a NAR",
      (index) => ({
        ...index,
        paths: index.paths.map((it) => ({ ...it, nar: { ...it.nar, url: "x" } })),
      }),
      'paths[0].nar: unknown key "url"',
    ],
    ["of format 0", (index) => ({ ...index, formatVersion: 0 }), "formatVersion: "],
    ["of a format in words", (index) => ({ ...index, formatVersion: "2" }), "formatVersion: "],
    ["that is null", () => [null], "expected a JSON object"],
    ["that is a list", () => [], "expected a JSON object"],
  ])("%s", (_, change, words) => {
    const failure = refused(change);
    expect(failure.code).toBe("INDEX_INVALID");
    expect(failure.message).toContain(words);
  });

  test("of a newer format, as one that needs a newer agent", () => {
    expect(refused(() => ({ formatVersion: 2, other: "things" })).code).toBe("FORMAT_UNSUPPORTED");
  });

  test("where the release has another toplevel, closure size or archive size", () => {
    const toplevel = samplePath("somebody-elses-system");
    const wrongToplevel = refused(() => undefined, { toplevel });
    expect(wrongToplevel.code).toBe("INDEX_INVALID");
    expect(wrongToplevel.message).toContain(`expected ${toplevel} as the last path, found `);
    const wrongClosure = refused(() => undefined, { closureSize: 1 });
    expect(wrongClosure.code).toBe("INDEX_INVALID");
    expect(wrongClosure.message).toContain("expected NAR sizes of 1 bytes in all, found 2114");
    const { archive: reference } = archive.release;
    const wrongSize = failureOf(() =>
      readIndex(
        archive.compressed,
        { ...archive.release, archive: { ...reference, size: reference.size + 512 } },
        TRUSTED,
      ),
    );
    expect(wrongSize.code).toBe("INDEX_INVALID");
    expect(wrongSize.message).toContain(
      `the archive has ${reference.size + 512} bytes, its index adds up to ${reference.size}`,
    );
  });

  test.each([
    ["is not signed", entry(1, (it) => (it.signatures = [])), "found none"],
    [
      "has a signature for other contents",
      entry(1, (it) => (it.narHash = `sha256:${"0".repeat(52)}`)),
      "found sample-1",
    ],
    [
      "has other references than were signed",
      entry(1, (it) => (it.references = [])),
      "found sample-1",
    ],
    [
      "has another path's signature",
      (index: ArchiveIndex) => {
        must(index.paths[1]).signatures = must(index.paths[0]).signatures;
      },
      "found sample-1",
    ],
  ])("where a path %s", (_, change, words) => {
    const failure = refused(change);
    expect(failure.code).toBe("PATH_SIGNATURE");
    expect(failure.message).toContain(`/nix/store/${must(archive.index.paths[1]).path}: `);
    expect(failure.message).toContain(`expected a signature by one of sample-1, ${words}`);
  });

  test("where its paths are signed by a key that is not trusted here", () => {
    const failure = refused(() => undefined, {}, [testKey("fleet-1").publicKey]);
    expect(failure.code).toBe("PATH_SIGNATURE");
    expect(failure.message).toContain("by one of fleet-1, found sample-1");
  });

  test.each([
    ["no gzip", Buffer.from("hello")],
    ["nothing", Buffer.alloc(0)],
    ["gzip that was cut short", chainArchive().compressed.subarray(0, 40)],
  ])("as %s", (_, compressed) => {
    const failure = failureOf(() => readIndex(compressed, pinning(archive, compressed), TRUSTED));
    expect(failure.code).toBe("INDEX_INVALID");
    expect(failure.message).toContain("not gzip-compressed JSON");
  });

  test.each([
    ["nothing", gzipSync("")],
    ["HTML", gzipSync("<html>")],
    ["bad UTF-8", gzipSync(Buffer.from([0xff, 0xfe]))],
  ])("as gzip of %s", (_, compressed) => {
    const failure = failureOf(() => readIndex(compressed, pinning(archive, compressed), TRUSTED));
    expect(failure.code).toBe("INDEX_INVALID");
    expect(failure.message).toContain("expected a JSON object");
  });

  test("with more paths than a thief without a store key may name, at once", () => {
    const [path] = archive.index.paths;
    const paths = Array.from({ length: 3_000 }, (_, at) => ({
      ...must(path),
      path: `${at.toString().padStart(32, "0")}-x`,
      signatures: [],
    }));
    const failure = refused((index) => ({ ...index, paths }));
    expect(failure.code).toBe("PATH_SIGNATURE");
    // Checked before the size of the closure, which is wrong too.
    expect(refused((index) => ({ ...index, paths: paths.slice(0, 500) })).code).toBe(
      "INDEX_INVALID",
    );
  });

  test("whose JSON is far longer than hashes compress to", () => {
    const compressed = gzipSync(Buffer.alloc(8 * 1024 * 1024, " "));
    const failure = failureOf(() => readIndex(compressed, pinning(archive, compressed), TRUSTED));
    expect(failure.code).toBe("INDEX_INVALID");
  });

  test("as a bomb that would unpack to more than the limit", () => {
    // Members of a gzip file follow one another; each of these unpacks to 16 MiB of spaces.
    const part = gzipSync(Buffer.alloc(16 * 1024 * 1024, " "), { level: 1 });
    const bomb = Buffer.concat(Array<Buffer>(MAX_INDEX_BYTES / (16 * 1024 * 1024) + 1).fill(part));
    const failure = failureOf(() => readIndex(bomb, pinning(archive, bomb), TRUSTED));
    expect(failure.code).toBe("INDEX_INVALID");
    expect(failure.message).toContain(`at most ${MAX_INDEX_BYTES} bytes`);
  });

  test("never with anything but a trust or archive error, whatever JSON is signed", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (json) => {
        const compressed = compressIndex(json);
        const read = () => readIndex(compressed, pinning(archive, compressed), TRUSTED);
        expect(["INDEX_INVALID", "FORMAT_UNSUPPORTED"]).toContain(failureOf(read).code);
      }),
    );
  });
});

describe("every place of an index is bounded", () => {
  const SHA = "a".repeat(64);
  const times = (count: number, value: unknown): unknown[] => Array<unknown>(count).fill(value);
  const delta = { base: 0, archive: 0, offset: 0, size: 1, sha256: SHA };
  const hash32 = "0".repeat(32);
  const [first] = chainArchive().index.paths;
  const full = {
    ...{ formatVersion: 1, compression: "zstd", archives: [{ sha256: SHA, size: 1 }] },
    paths: [
      {
        ...{ ...must(first), ca: "fixed:r:sha256:0", was: [hash32], deltas: [delta] },
        nar: { archive: 0, offset: 0, size: 1, sha256: SHA },
      },
    ],
  };
  const signature = must(must(first).signatures[0]);
  const takes = (path: string, value: unknown): boolean =>
    takesAt(archiveIndexSchema, full, path, value);

  test("it may have every key, and none more in any place", () => {
    expect(archiveIndexSchema.parse(full)).toEqual(full);
    for (const place of ["archives.0", "paths.0", "paths.0.nar", "paths.0.deltas.0"]) {
      expect(takes(`${place}.more`, 1), place).toBe(false);
    }
    expect(takes("more", 1)).toBe(false);
  });

  test.each(["archives", "paths.0.ca", "paths.0.was", "paths.0.deltas", "paths.0.nar.archive"])(
    "%s may be absent",
    (path) => {
      expect(takes(path, undefined)).toBe(true);
    },
  );

  test.each([
    ...["formatVersion", "compression", "paths", "archives.0.sha256", "archives.0.size"],
    ...["path", "narHash", "narSize", "references", "signatures", "nar"].map(
      (it) => `paths.0.${it}`,
    ),
    ...["offset", "size", "sha256"].map((it) => `paths.0.nar.${it}`),
    ...Object.keys(delta).map((it) => `paths.0.deltas.0.${it}`),
  ])("%s may not", (path) => {
    expect(takes(path, undefined)).toBe(false);
  });

  test.each<[path: string, good: unknown[], bad: unknown[]]>([
    ["compression", ["zstd", "xz", "none"], ["", "gzip"]],
    ["archives", [[], times(10_000, { sha256: SHA, size: 1 })], []],
    ["archives", [], [times(10_001, { sha256: SHA, size: 1 })]],
    ["archives.0.size", [1], [0, 0.5]],
    ["archives.0.sha256", [SHA], ["a"]],
    ["paths.0.narSize", [1], [0, 0.5]],
    ["paths.0.signatures", [[], times(32, signature)], [times(33, signature), ["a:b"]]],
    ["paths.0.ca", ["text:sha256:0", "fixed:git:sha1:0"], ["", "text", "text:sha256:0 ", "x:y"]],
    ["paths.0.was", [[], times(16, ""), [`${hash32}-a`]], [times(17, ""), ["-a"], [`${hash32}-`]]],
    ["paths.0.was", [[`${hash32}-${"a".repeat(211)}`]], [[`${hash32}-${"a".repeat(212)}`]]],
    ["paths.0.was", [[hash32]], [[`x${hash32}`], [`${hash32}x`], [`${hash32.slice(1)}e`]]],
    ["paths.0.deltas", [[], times(16, delta)], [times(17, delta)]],
    ["paths.0.deltas.0.base", [0, 3], [-1, 0.5]],
    ["paths.0.deltas.0.archive", [0, 3], [-1, 0.5]],
    ["paths.0.deltas.0.offset", [0, 3], [-1, 0.5]],
    ["paths.0.deltas.0.size", [1], [0, 0.5]],
    ["paths.0.deltas.0.sha256", [SHA], ["a"]],
    ["paths.0.nar.archive", [0, 3], [-1, 0.5]],
    ["paths.0.nar.offset", [0, 3], [-1, 0.5]],
    ["paths.0.references", [[], [0]], [[-1], [0.5], 0]],
  ])("%s", (path, good, bad) => {
    for (const value of good) expect(takes(path, value), JSON.stringify(value)).toBe(true);
    for (const value of bad) expect(takes(path, value), JSON.stringify(value)).toBe(false);
  });
});

describe("an index that was made by a patch", () => {
  const { release, index, bytes, compressed } = chainArchive();
  const json = Buffer.from(JSON.stringify(index));

  test("is checked by the hash of its JSON", () => {
    const archive = { ...release.archive, index: { ...release.archive.index, json: hash(json) } };
    const contents = readPatchedIndex(json, { ...release, archive }, TRUSTED);
    expect(contents).toEqual(readIndex(compressed, release, TRUSTED));
    expect(contents.size).toBe(bytes.length);
    const changed = Buffer.from(`${json.toString()} `);
    const failure = failureOf(() => readPatchedIndex(changed, { ...release, archive }, TRUSTED));
    expect(failure.code).toBe("ARCHIVE_CORRUPT");
    expect(failure.message).toContain("patched index: expected sha256 ");
  });

  test("is refused if the manifest says no hash of the JSON", () => {
    const failure = failureOf(() => readPatchedIndex(json, release, TRUSTED));
    expect(failure.code).toBe("ARCHIVE_CORRUPT");
    expect(failure.message).toContain("expected sha256 none");
  });
});

test("without keys signatures are not checked, but all else is", () => {
  const { compressed, release, index } = chainArchive();
  expect(readIndex(compressed, release, null).index).toEqual(index);
  expect(failureOf(() => readIndex(compressed, release, [])).code).toBe("PATH_SIGNATURE");
  expect(failureOf(() => readIndex(compressed, { ...release, closureSize: 1 }, null)).code).toBe(
    "INDEX_INVALID",
  );
});

describe("a delta", () => {
  const other = { sha256: "ab".repeat(32), size: 1_000 };
  const read = (offset: number, size: number, archive = 0) => {
    const index = structuredClone(chainArchive().index);
    index.archives = [other];
    must(index.paths[0]).deltas = [{ base: 0, archive, offset, size, sha256: other.sha256 }];
    const compressed = compressIndex(index);
    const after = archiveSize(layOut(ownNarInfosOf(index), 0), 0) - endOfIndex(0);
    return readIndex(compressed, releaseOfIndex(index, compressed, after), TRUSTED);
  };

  test("lies within an archive that the index names", () => {
    expect(must(read(900, 100).index.paths[0]?.deltas)).toHaveLength(1);
    for (const refused of [() => read(901, 100), () => read(0, 1_001), () => read(0, 1, 1)]) {
      const failure = failureOf(refused);
      expect(failure.code).toBe("INDEX_INVALID");
      expect(failure.message).toContain("a delta lies in no archive");
    }
  });
});

test("an index that cannot be read keeps the reason", () => {
  const archive = chainArchive();
  const bytes = Buffer.from("hello");
  const unreadable = failureOf(() => readIndex(bytes, pinning(archive, bytes), TRUSTED));
  expect(unreadable.cause).toBeInstanceOf(Error);
  const newer = compressIndex({ formatVersion: 2 });
  expect(failureOf(() => readIndex(newer, pinning(archive, newer), TRUSTED)).message).toBe(
    "expected archive format 1, found 2; this host needs a newer nixos-pull",
  );
});

function hash(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function must<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("the sample has no such path");
  return value;
}

function pinning({ index }: SampleArchive, compressed: Uint8Array): Release {
  return releaseOfIndex(index, compressed, 0);
}
