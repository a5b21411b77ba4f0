import {
  checkIndex,
  openIndex,
  readPatchedIndex,
  type ArchiveContents,
} from "../../core/formats/archive-index.ts";
import { toPullError } from "../../core/errors.ts";
import type { IndexRules } from "../../core/formats/index-reader.ts";
import type { IndexPatch, Release } from "../../core/formats/manifest.ts";
import type { Mirror, Staging } from "../../core/ports.ts";
import { ByteReader } from "../../core/transfer/byte-reader.ts";
import { VerifiedSignatures } from "../../core/formats/verified-signatures.ts";
import { readCompressedIndex } from "../../core/transfer/compressed-index.ts";
import { expectSha256 } from "../../core/formats/sha256.ts";
import { withFailover } from "../poll/mirror-failover.ts";
import type { FetchTools } from "./tools.ts";

/** A checked index, and its JSON, which the patch of a later one is applied to. */
export interface CheckedIndex {
  readonly contents: ArchiveContents;
  readonly json: Buffer;
  /** Which of its signatures were checked, for the next index. */
  readonly verified: VerifiedSignatures;
}

/** Where a closure is on the mirrors, and what it must be. */
export type ClosurePlace = Pick<Release, "toplevel" | "closureSize" | "archive">;

type IndexTools = Pick<
  FetchTools,
  "settings" | "mirrors" | "standings" | "indexes" | "applyIndexPatch" | "log" | "onArchiveRead"
>;

/**
 * A release's index: as an earlier attempt left it in `staging`, or made out of a kept index
 * and a patch, or whole from the first mirror that gives the right one. A whole one is
 * written to `staging`, if there is one. Throws what the last mirror threw, INDEX_INVALID,
 * PATH_SIGNATURE, FORMAT_UNSUPPORTED, INTERRUPTED.
 */
export async function readIndex(
  release: ClosurePlace,
  staging: Staging | null,
  tools: IndexTools,
  signal: AbortSignal | undefined,
): Promise<CheckedIndex> {
  const verified = new VerifiedSignatures(await tools.indexes.verified());
  const { contentAddressed } = tools.settings;
  // A host reads what it knows: the release's `requires` names what it must understand.
  const rules = { contentAddressed, unknownKeys: "ignored", verified } as const;
  const read =
    (await stagedIndex(release, staging, tools, rules)) ??
    (await patchedIndex(release, tools, rules, signal)) ??
    (await wholeIndex(release, staging, { ...tools, rules }, signal));
  return { ...read, verified };
}

type ReadIndex = Omit<CheckedIndex, "verified">;

async function stagedIndex(
  release: ClosurePlace,
  staging: Staging | null,
  { settings, log }: IndexTools,
  rules: IndexRules,
): Promise<ReadIndex | null> {
  const staged = await staging?.readIndex();
  if (!staged) return null;
  try {
    const json = openIndex(staged, release.archive);
    return { contents: checkIndex(json, release, settings.storeKeys, rules), json };
  } catch (error) {
    log.debug(`the staged index is read again: ${toPullError(error).message}`);
    return null;
  }
}

/** Null if there is no patch for an index that is kept here, or if it does not work out. */
async function patchedIndex(
  release: ClosurePlace,
  tools: IndexTools,
  rules: IndexRules,
  signal: AbortSignal | undefined,
): Promise<ReadIndex | null> {
  const { settings, mirrors, standings, indexes, applyIndexPatch, log } = tools;
  const { size, patches = [] } = release.archive.index;
  const worthwhile = patches.filter((patch) => patch.size < size);
  for (const patch of worthwhile.sort((a, b) => a.size - b.size)) {
    const base = await indexes.find(patch.base);
    if (base === null) continue;
    try {
      // A mirror without the patch is no reason to worry: the whole index comes instead.
      const order = standings?.order.bind(standings) ?? ((all: readonly Mirror[]) => [...all]);
      const quiet = {
        mirrors,
        standings: { order, heard: () => undefined },
        log: { warn: log.debug.bind(log) },
      };
      const bytes = await withFailover(quiet, (mirror) => readPatch(patch, mirror, signal));
      const json = await applyIndexPatch(base, bytes, signal);
      const contents = readPatchedIndex(json, release, settings.storeKeys, rules);
      log.debug(`the index came as a patch of ${patch.size} bytes`);
      return { contents, json };
    } catch (thrown) {
      const error = toPullError(thrown);
      if (error.code === "INTERRUPTED") throw error;
      log.info(`the index is read whole, its patch did not serve: ${error.message}`);
      return null;
    }
  }
  return null;
}

/** Reads a patch; it has its signed hash. */
async function readPatch(
  { archive, offset, size, sha256 }: IndexPatch,
  mirror: Mirror,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  const range = { from: offset, to: offset + size };
  const reader = new ByteReader(mirror.readArchive(archive, range, signal));
  try {
    const bytes = await reader.take(size);
    expectSha256(bytes, sha256, `index patch in ${archive}.tar`);
    return bytes;
  } finally {
    await reader.close();
  }
}

async function wholeIndex(
  release: ClosurePlace,
  staging: Staging | null,
  { rules, ...tools }: IndexTools & { rules: IndexRules },
  signal: AbortSignal | undefined,
): Promise<ReadIndex> {
  return withFailover(tools, async (mirror) => {
    const compressed = await readCompressedIndex(mirror, release, signal);
    const json = openIndex(compressed, release.archive);
    const contents = checkIndex(json, release, tools.settings.storeKeys, rules);
    await staging?.writeIndex(compressed);
    return { contents, json };
  });
}
