import type { ArchiveContents, Member, NarMember } from "../formats/archive-index.ts";
import { PullError } from "../errors.ts";
import {
  TAR_BLOCK,
  TAR_TRAILER,
  describeTarHeader,
  paddedSize,
  tarHeader,
} from "../formats/tar-layout.ts";
import { ByteReader } from "./byte-reader.ts";
import type { Run } from "./fetch-plan.ts";

/** Gets one wanted NAR: the bytes of it that are held already, and the rest in pieces. */
export type NarSink = (
  member: NarMember,
  have: number,
  pieces: AsyncIterable<Uint8Array>,
) => Promise<void>;

/**
 * Reads a run's bytes and gives the contents of each wanted NAR to `onNar`, which checks
 * their hash. Every header, narinfo and padding byte must be exactly what the index implies.
 * Closes `source` at the end. Throws ARCHIVE_TRUNCATED, ARCHIVE_MEMBER, NARINFO_MISMATCH, and
 * what `source` and `onNar` throw.
 */
export async function readRun(
  run: Run,
  contents: Pick<ArchiveContents, "sha256" | "size">,
  source: AsyncIterable<Uint8Array>,
  onNar: NarSink,
): Promise<void> {
  const reader = new ByteReader(source);
  try {
    let at = run.from;
    for (const { member, wanted, have } of run.members) {
      // Other archives have members that this index does not know.
      if (member.headerOffset > at) await reader.skip(member.headerOffset - at);
      at = member.headerOffset + TAR_BLOCK + paddedSize(member.size);
      if (have === 0) await expectHeader(reader, member);
      if (!wanted) {
        await reader.skip(member.size);
      } else if (member.body.kind === "nar") {
        await onNar(member as NarMember, have, reader.pieces(member.size - have));
      } else {
        await expectBytes(reader, member, member.body.bytes);
      }
      await expectZeros(reader, paddedSize(member.size) - member.size, member.name);
    }
    if (run.archive === contents.sha256 && run.to === contents.size)
      await expectZeros(reader, TAR_TRAILER, "the last member");
  } finally {
    await reader.close();
  }
}

async function expectHeader(reader: ByteReader, member: Member): Promise<void> {
  const found = await reader.take(TAR_BLOCK);
  if (found.equals(tarHeader(member.name, member.size))) return;
  throw new PullError(
    "ARCHIVE_MEMBER",
    `expected the tar member file ${JSON.stringify(member.name)} of ${member.size} bytes at ` +
      `offset ${member.headerOffset}, found ${describeTarHeader(found)}`,
  );
}

async function expectBytes(reader: ByteReader, member: Member, expected: Buffer): Promise<void> {
  const found = await reader.take(member.size);
  if (found.equals(expected)) return;
  const lines = found.toString("utf8").split("\n");
  const differing = expected
    .toString("utf8")
    .split("\n")
    .findIndex((line, at) => line !== lines[at]);
  throw new PullError(
    "NARINFO_MISMATCH",
    `${member.name} differs from the signed index in line ${differing + 1}: expected ` +
      JSON.stringify(expected.toString("utf8").split("\n")[differing] ?? ""),
  );
}

async function expectZeros(reader: ByteReader, length: number, after: string): Promise<void> {
  const found = await reader.take(length);
  if (found.every((byte) => byte === 0)) return;
  throw new PullError("ARCHIVE_MEMBER", `expected ${length} zero bytes after ${after}`);
}
