import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pack, type Header } from "tar-stream";
import {
  INDEX_MEMBER,
  encodeIndex,
  layOut,
  narInfosOf,
  readIndex,
  type ArchiveIndex,
  type IndexedPath,
} from "../../agent/core/formats/archive-index.ts";
import type { HostEntry } from "../../agent/core/formats/manifest.ts";
import { pathFingerprint, signPath } from "../../agent/core/formats/narinfo.ts";
import type { SecretKey } from "../../agent/core/formats/signing-key.ts";
import { TAR_BLOCK } from "../../agent/core/formats/tar-layout.ts";
import {
  sealManifest,
  type ReleaseSeries,
  type Sequence,
  type TestMirror,
} from "./release-series.ts";

/** One member of a tar as a malicious publisher would write it. */
export interface TarMember {
  readonly header: Partial<Header> & { name: string };
  readonly body?: Uint8Array;
}

/** What is to be wrong with a release; each part is changed in place or replaced. */
export interface Forgery {
  /** Changes the index; members, narinfos and signatures follow it unless told otherwise. */
  readonly index?: (index: ArchiveIndex) => void;
  /** Writes the index member otherwise than a publisher would. */
  readonly encode?: (index: ArchiveIndex) => Buffer;
  /** Changes the tar members that follow the index. */
  readonly members?: (members: TarMember[]) => TarMember[];
  /** Contents for NARs by their sha256, where the index was changed to name others. */
  readonly nars?: ReadonlyMap<string, Buffer>;
  /** Changes the finished archive before its hash is taken. */
  readonly bytes?: (archive: Buffer) => Buffer;
  /** Changes what the manifest says about the host. */
  readonly entry?: (entry: HostEntry) => HostEntry;
}

/**
 * Makes release `sequence` of the mirror one that its publisher signed with the real key
 * and that has the right size and hashes in its manifest, but is wrong otherwise.
 */
export async function forgeRelease(
  series: ReleaseSeries,
  mirror: TestMirror,
  sequence: Sequence,
  forgery: Forgery,
): Promise<void> {
  const manifest = series.manifests[sequence];
  const entry = manifest.hosts["web1"];
  if (!entry) throw new Error("no such release");
  const honest = await openArchive(series, mirror, sequence);
  const index = structuredClone(honest.index);
  forgery.index?.(index);
  const encoded = (forgery.encode ?? encodeIndex)(index);
  const nars = new Map([...honest.nars, ...(forgery.nars ?? [])]);
  const members = layOut(narInfosOf(index), encoded.length).map(({ name, body }): TarMember => ({
    header: { name },
    body: body.kind === "bytes" ? body.bytes : (nars.get(body.sha256) ?? Buffer.alloc(0)),
  }));
  let archive = await packTar([
    { header: { name: INDEX_MEMBER }, body: encoded },
    ...(forgery.members?.(members) ?? members),
  ]);
  archive = forgery.bytes?.(archive) ?? archive;
  const sha256 = sha256Of(archive);
  await writeFile(join(mirror.directory, "archives", `${sha256}.tar`), archive);
  const forged: HostEntry = {
    ...entry,
    archive: {
      sha256,
      size: archive.length,
      index: { sha256: sha256Of(encoded), size: encoded.length },
    },
  };
  const told = forgery.entry?.(forged) ?? forged;
  await mirror.writeManifest(
    sealManifest({ ...manifest, hosts: { web1: told } }, series.secretKey),
  );
}

/** The parts of a published archive. */
export async function openArchive(
  series: ReleaseSeries,
  mirror: TestMirror,
  sequence: Sequence,
): Promise<{ index: ArchiveIndex; indexSize: number; nars: Map<string, Buffer>; bytes: Buffer }> {
  const entry = series.manifests[sequence].hosts["web1"];
  if (!entry) throw new Error("no such release");
  const bytes = await readFile(mirror.archiveFile(sequence));
  const { size } = entry.archive.index;
  const compressed = bytes.subarray(TAR_BLOCK, TAR_BLOCK + size);
  const { index, members } = readIndex(compressed, entry, [series.secretKey.publicKey]);
  const nars = new Map(
    members.flatMap(({ body, headerOffset, size: length }) => {
      const start = headerOffset + TAR_BLOCK;
      return body.kind === "nar" ? [[body.sha256, bytes.subarray(start, start + length)]] : [];
    }),
  );
  return { index, indexSize: size, nars, bytes };
}

/** Signs an indexed path anew, after its facts were changed. */
export function resign(index: ArchiveIndex, entry: IndexedPath, ...keys: SecretKey[]): void {
  const info = narInfosOf(index)[index.paths.indexOf(entry)];
  if (!info) throw new Error("not a path of this index");
  entry.signatures = keys.map((key) => signPath(key, pathFingerprint(info)));
}

async function packTar(members: readonly TarMember[]): Promise<Buffer> {
  const tar = pack();
  for (const { header, body } of members) {
    const fixed = { mode: 0o644, uid: 0, gid: 0, mtime: new Date(0), type: "file" } as const;
    tar.entry({ ...fixed, ...header }, Buffer.from(body ?? []));
  }
  tar.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of tar as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
