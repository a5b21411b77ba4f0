import { createHash } from "node:crypto";
import {
  checkIndex,
  openIndex,
  readPatchedIndex,
  type ArchiveContents,
} from "../../core/formats/archive-index.ts";
import { PullError, toPullError } from "../../core/errors.ts";
import type { IndexPatch, Release } from "../../core/formats/manifest.ts";
import { readCompressedIndex } from "../../core/transfer/compressed-index.ts";
import { ByteReader } from "../../core/transfer/byte-reader.ts";
import type { Staging } from "../../core/ports.ts";
import type { FetchTools } from "./closure-fetch.ts";
import { withFailover } from "../poll/mirror-failover.ts";

/** A checked index, and its JSON for those that will be described by it. */
export interface FetchedIndex {
  readonly contents: ArchiveContents;
  readonly json: Buffer;
}

/**
 * A release's index: as an earlier attempt left it in `staging`, or made out of an index
 * of this host's and a patch, or whole from the first mirror that gives the right one. A
 * whole one is kept in `staging`, if there is one. Throws what the last mirror threw.
 */
export async function fetchIndex(
  release: Release,
  staging: Staging | null,
  tools: FetchTools,
  signal: AbortSignal | undefined,
): Promise<FetchedIndex> {
  return (
    (await stagedIndex(release, staging, tools)) ??
    (await patchedIndex(release, tools, signal)) ??
    (await mirroredIndex(release, staging, tools, signal))
  );
}

async function stagedIndex(
  release: Release,
  staging: Staging | null,
  { settings, log }: FetchTools,
): Promise<FetchedIndex | null> {
  const staged = await staging?.readIndex();
  if (!staged) return null;
  try {
    const json = openIndex(staged, release.archive);
    return { contents: checkIndex(json, release, settings.storeKeys), json };
  } catch (error) {
    log.debug(`the staged index is read again: ${toPullError(error).message}`);
    return null;
  }
}

/** Null where there is no patch for what this host has, or where it does not work out. */
async function patchedIndex(
  release: Release,
  { settings, mirrors, indexes, applyIndexPatch, log }: FetchTools,
  signal: AbortSignal | undefined,
): Promise<FetchedIndex | null> {
  const patches = [...(release.archive.index.patches ?? [])].sort((a, b) => a.size - b.size);
  for (const patch of patches) {
    const base = await indexes.find(patch.base);
    if (base === null || patch.size >= release.archive.index.size) continue;
    try {
      const quiet = { mirrors, log: { ...log, warn: log.debug.bind(log) } };
      const bytes = await withFailover(quiet, (mirror) => readPatch(patch, mirror, signal));
      const json = await applyIndexPatch(base, bytes, signal);
      const contents = readPatchedIndex(json, release, settings.storeKeys);
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
  mirror: FetchTools["mirrors"][number],
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  const range = { from: offset, to: offset + size };
  const reader = new ByteReader(mirror.readArchive(archive, range, signal));
  try {
    const bytes = await reader.take(size);
    const found = createHash("sha256").update(bytes).digest("hex");
    if (found === sha256) return bytes;
    throw new PullError(
      "ARCHIVE_CORRUPT",
      `index patch in ${archive}.tar: expected sha256 ${sha256}, found ${found}`,
    );
  } finally {
    await reader.close();
  }
}

async function mirroredIndex(
  release: Release,
  staging: Staging | null,
  tools: FetchTools,
  signal: AbortSignal | undefined,
): Promise<FetchedIndex> {
  return withFailover(tools, async (mirror) => {
    const compressed = await readCompressedIndex(mirror, release, signal);
    const json = openIndex(compressed, release.archive);
    const contents = checkIndex(json, release, tools.settings.storeKeys);
    await staging?.writeIndex(compressed);
    return { contents, json };
  });
}
