import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import type { ArchiveIndex, IndexedPath } from "../../agent/core/formats/archive-index.ts";
import type { Release } from "../../agent/core/formats/manifest.ts";
import {
  COMPRESSIONS,
  narFileName,
  pathFingerprint,
  renderNarInfo,
  signPath,
} from "../../agent/core/formats/narinfo.ts";
import type { SecretKey } from "../../agent/core/formats/signing-key.ts";
import { STORE_DIRECTORY, encodeBase32 } from "../../agent/core/formats/store-path.ts";
import { tarHeader } from "../../agent/core/formats/tar-layout.ts";
import { sampleRelease } from "./sample-release.ts";
import { testKey } from "./test-key.ts";

/** The key that signs every sample. */
export const SAMPLE_KEY = testKey("sample-1");

/** What the index is made of; its contents need not be real NARs. */
export interface SamplePath {
  readonly name: string;
  /** Positions of earlier paths, and possibly its own. */
  readonly references: readonly number[];
  readonly nar: Uint8Array;
}

/** A closure archive that was put together without the code under test. */
export interface SampleArchive {
  readonly index: ArchiveIndex;
  readonly compressed: Buffer;
  /** All bytes of the tar. */
  readonly bytes: Buffer;
  readonly release: Release;
  /** NAR member names and contents, in archive order. */
  readonly nars: ReadonlyMap<string, Buffer>;
}

const ZEROS = Buffer.alloc(1024);

function member(name: string, contents: Uint8Array): Buffer {
  const padding = (512 - (contents.length % 512)) % 512;
  return Buffer.concat([tarHeader(name, contents.length), contents, ZEROS.subarray(0, padding)]);
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest();
}

/** Compresses an index of any form, right or wrong. */
export function compressIndex(index: unknown): Buffer {
  return gzipSync(JSON.stringify(index));
}

/** The release that pins an index, with the size that an archive of these contents has. */
export function releaseOfIndex(
  index: ArchiveIndex,
  compressed: Uint8Array,
  sizeAfterIndex: number,
  archiveSha256 = "00".repeat(32),
): Release {
  const indexMember = 512 + Math.ceil(compressed.length / 512) * 512;
  return sampleRelease({
    toplevel: `${STORE_DIRECTORY}/${index.paths.at(-1)?.path ?? ""}`,
    closureSize: index.paths.reduce((sum, { narSize }) => sum + narSize, 0),
    archive: {
      sha256: archiveSha256,
      size: indexMember + sizeAfterIndex,
      index: { sha256: sha256(compressed).toString("hex"), size: compressed.length },
    },
  });
}

/** Puts an archive together: index, cache info, narinfos by name, NARs, two zero blocks. */
export function sampleArchive(
  paths: readonly SamplePath[],
  compression: ArchiveIndex["compression"] = "none",
  key: SecretKey = SAMPLE_KEY,
): SampleArchive {
  const names = paths.map(({ name }, at) => {
    const digits = encodeBase32(sha256(Buffer.from(`${at} ${name}`)).subarray(0, 20));
    return `${digits}-${name}`;
  });
  const facts = paths.map(({ nar, references }, at) => {
    const storePath = names[at] ?? "";
    const info = {
      storePath,
      narHash: `sha256:${encodeBase32(sha256(Buffer.concat([Buffer.from("nar of "), nar])))}`,
      narSize: nar.length + 100,
      references: references.map((position) => names[position] ?? "").sort(),
    };
    return { ...info, signatures: [signPath(key, pathFingerprint(info))] };
  });

  const rest: Buffer[] = [member("nix-cache-info", Buffer.from("StoreDir: /nix/store\n"))];
  const narInfos = facts.map((info, at) => {
    const nar = paths[at]?.nar ?? new Uint8Array(0);
    const fileSha256 = sha256(nar).toString("hex");
    return { ...info, compression, fileSha256, fileSize: nar.length };
  });
  for (const info of narInfos.toSorted((a, b) => (a.storePath < b.storePath ? -1 : 1))) {
    const text = Buffer.from(renderNarInfo(info));
    rest.push(member(`${info.storePath.slice(0, 32)}.narinfo`, text));
  }
  const nars = new Map<string, Buffer>();
  const offsets = new Map<string, number>();
  let at = rest.reduce((sum, { length }) => sum + length, 0);
  for (const [position, { fileSha256 }] of narInfos.entries()) {
    const name = narFileName(fileSha256, compression);
    if (nars.has(name)) continue;
    const contents = Buffer.from(paths[position]?.nar ?? []);
    nars.set(name, contents);
    offsets.set(fileSha256, at + 512);
    rest.push(member(name, contents));
    at += rest.at(-1)?.length ?? 0;
  }
  rest.push(ZEROS);

  const index: ArchiveIndex = {
    formatVersion: 1,
    compression,
    paths: facts.map((info, position): IndexedPath => {
      const { fileSha256, fileSize } = narInfos[position] ?? { fileSha256: "", fileSize: 0 };
      return {
        path: info.storePath,
        narHash: info.narHash,
        narSize: info.narSize,
        references: [...(paths[position]?.references ?? [])],
        signatures: info.signatures,
        nar: { offset: offsets.get(fileSha256) ?? 0, size: fileSize, sha256: fileSha256 },
      };
    }),
  };
  const compressed = compressIndex(index);
  const bytes = Buffer.concat([member("index.json.gz", compressed), ...rest]);
  const sizeAfterIndex = rest.reduce((sum, { length }) => sum + length, 0);
  const archiveSha256 = sha256(bytes).toString("hex");
  const release = releaseOfIndex(index, compressed, sizeAfterIndex, archiveSha256);
  return { index, compressed, bytes, release, nars };
}

/** Where a delta of a sample lies, and what it is based on. */
export interface SampleDelta {
  /** The path's position in the index. */
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** A sample with deltas: one archive with their bytes, and for each path its only base. */
export interface SampleWithDeltas extends SampleArchive {
  readonly deltaArchive: { readonly sha256: string; readonly bytes: Buffer };
  /** Absolute base paths, in the order of the deltas. */
  readonly bases: readonly string[];
  /** Offsets of the deltas in their archive, in the same order. */
  readonly offsets: readonly number[];
}

/** The same archive, whose index offers deltas that lie so many bytes apart. */
export function withDeltas(
  archive: SampleArchive,
  deltas: readonly SampleDelta[],
  gap = 512,
): SampleWithDeltas {
  const pieces: Buffer[] = [];
  const offsets: number[] = [];
  let size = 0;
  for (const { bytes } of deltas) {
    offsets.push(size + gap);
    pieces.push(Buffer.alloc(gap), Buffer.from(bytes));
    size += gap + bytes.length;
  }
  const bytes = Buffer.concat(pieces);
  const deltaArchive = { sha256: sha256(bytes).toString("hex"), bytes };
  const digits = deltas.map(({ at }) =>
    encodeBase32(sha256(Buffer.from(`base of ${at}`)).subarray(0, 20)),
  );
  const paths = archive.index.paths.map((entry, position): IndexedPath => {
    const one = deltas.findIndex(({ at }) => at === position);
    const delta = deltas[one];
    if (!delta) return entry;
    return {
      ...entry,
      was: [digits[one] ?? ""],
      deltas: [
        {
          ...{ base: 0, archive: 0, offset: offsets[one] ?? 0, size: delta.bytes.length },
          sha256: sha256(delta.bytes).toString("hex"),
        },
      ],
    };
  });
  const archives = [{ sha256: deltaArchive.sha256, size: bytes.length }];
  const index: ArchiveIndex = { ...archive.index, archives, paths };
  const compressed = compressIndex(index);
  const after = archive.bytes.subarray(512 + Math.ceil(archive.compressed.length / 512) * 512);
  const whole = Buffer.concat([member("index.json.gz", compressed), after]);
  const release = releaseOfIndex(index, compressed, after.length, sha256(whole).toString("hex"));
  return {
    ...{ index, compressed, bytes: whole, release, nars: archive.nars, deltaArchive, offsets },
    bases: deltas.map(
      ({ at }, one) =>
        `${STORE_DIRECTORY}/${digits[one] ?? ""}${archive.index.paths[at]?.path.slice(32) ?? ""}`,
    ),
  };
}

const samplePathArbitrary = fc.record({
  name: fc.stringMatching(/^[a-zA-Z0-9+._?=-]{1,40}$/),
  // Some are alike, so that paths share a NAR.
  nar: fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 1500 }),
    fc.constantFrom(Uint8Array.of(1), new Uint8Array(512).fill(7), new Uint8Array(1024).fill(8)),
  ),
  references: fc.array(fc.nat({ max: 9 }), { maxLength: 4 }),
});

/** Any closure of one to eight paths with any compression. */
export const sampleArchives: fc.Arbitrary<SampleArchive> = fc
  .tuple(
    fc.array(samplePathArbitrary, { minLength: 1, maxLength: 8 }),
    fc.constantFrom(...COMPRESSIONS),
  )
  .map(([paths, compression]) =>
    sampleArchive(
      paths.map((path, at) => ({
        ...path,
        references: [...new Set(path.references.filter((to) => to <= at))].sort((a, b) => a - b),
      })),
      compression,
    ),
  );

/** Three paths in a row, each with an own NAR of more than one block. */
export function chainArchive(): SampleArchive {
  return sampleArchive([
    { name: "library-1.0", references: [0], nar: new Uint8Array(700).fill(1) },
    { name: "program-2.0", references: [0], nar: new Uint8Array(1024).fill(2) },
    { name: "nixos-system-web1-1", references: [0, 1], nar: new Uint8Array(90).fill(3) },
  ]);
}
