import { lstatSync } from "node:fs";
import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import type { NarInfo } from "../../core/formats/narinfo.ts";
import { Sha256 } from "../../core/formats/sha256.ts";
import { STORE_DIRECTORY, decodeBase32 } from "../../core/formats/store-path.ts";
import type { StoreRepair } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { inTurns } from "../process/turns.ts";
import { ProcessFailure, streamProcess } from "../process/subprocess.ts";
import { keepCollectionsAway } from "./collection-lock.ts";
import { NIX_OPTIONS, childEnvironment } from "./nix-environment.ts";
import { NixPrograms } from "./nix-programs.ts";
import { StoreWriter } from "./store-writer.ts";
import { canonise, mendTree } from "./tree-mender.ts";

/** Paths verified by one call. If one of them is damaged, each is verified by itself. */
const PATHS_PER_VERIFICATION = 64;

/**
 * Where fresh trees lie: in the store, so that they can be renamed from there. Nix's garbage
 * collector removes whatever has no store path's name, so that a repair keeps it away; what a killed
 * agent left goes with the next collection or repair.
 */
const WORK = ".nixos-pull-repair";

/** Finds damage in the store, and mends it. */
export function storeRepairOf(
  settings: Pick<Settings, "store" | "storeKeys" | "limits">,
): StoreRepair {
  const nix = new NixPrograms(settings);
  const realPath = (path: string): string => join(nix.root ?? "/", path);
  return {
    async closures(paths) {
      const invalid = new Set(await nix.queryPaths(["--check-validity", "--print-invalid"], paths));
      const valid = paths.filter((path) => !invalid.has(path));
      if (valid.length === 0) return [];
      return [...new Set(await nix.queryPaths(["--query", "--requisites"], valid))];
    },
    async absent(paths) {
      const absent: string[] = [];
      await inTurns(paths, (path) => {
        if (!isThere(realPath(path))) absent.push(path);
      });
      return absent;
    },
    async damaged(paths, { signal, onVerified }) {
      const damaged: string[] = [];
      for (let from = 0; from < paths.length; from += PATHS_PER_VERIFICATION) {
        const some = paths.slice(from, from + PATHS_PER_VERIFICATION);
        if (!(await nix.areWhole(some, signal))) {
          // Nix names the damaged ones only in messages for people, so each is asked for.
          for (const path of some) if (!(await nix.areWhole([path], signal))) damaged.push(path);
        }
        onVerified?.(Math.min(from + some.length, paths.length));
      }
      return damaged;
    },
    async registeredHashes(paths) {
      const hashes = await nix.queryPaths(["--query", "--hash"], paths);
      return new Map(paths.map((path, at) => [path, hashes[at] ?? ""]));
    },
    async mend(directory, narInfos, { signal, onMended }) {
      const timeoutMs = settings.limits.importTimeout;
      const store = realPath(STORE_DIRECTORY);
      const work = join(store, WORK);
      const options = { env: childEnvironment(), timeoutMs, signal };
      for (const info of narInfos) {
        // Taken for one path at a time: a collection that waits gets its turn in between.
        const collections = await keepCollectionsAway(nix.root, options);
        try {
          const writer = await StoreWriter.open(store, work, options);
          try {
            const fresh = join(work, "fresh");
            await unpack(directory, info, { writer, fresh, options });
            await canonise(fresh, writer);
            // Whole on the disk before any of it is where programs look for it.
            await nix.flush();
            const path = `${STORE_DIRECTORY}/${info.storePath}`;
            const mending = { writer, store, aside: work, options };
            const files = await mendTree(fresh, realPath(path), mending);
            onMended?.(path, files);
          } finally {
            await writer.remove(work);
          }
        } finally {
          await collections.release();
        }
      }
      await nix.flush();
    },
  };
}

/** Unpacks a NAR of a binary cache to `fresh`. Throws ARCHIVE_CORRUPT unless it is what was signed. */
async function unpack(
  directory: string,
  { storePath, narHash, narSize }: NarInfo,
  {
    writer,
    fresh,
    options,
  }: {
    writer: StoreWriter;
    fresh: string;
    options: Parameters<typeof streamProcess>[2];
  },
): Promise<void> {
  const hash = new Sha256();
  const path = `${STORE_DIRECTORY}/${storePath}`;
  const args = ["store", "dump-path", "--store", `file://${directory}`, path, ...NIX_OPTIONS];
  try {
    await streamProcess("nix", args, options, (nar) =>
      writer.run("nix-store", ["--restore", fresh], {
        input: atMost(hash.pass(nar), narSize, path),
      }),
    );
  } catch (cause) {
    if (!(cause instanceof ProcessFailure)) throw cause;
    throw new PullError("IMPORT_FAILED", cause.message, { cause });
  }
  const expected = decodeBase32(narHash.slice("sha256:".length), 32)?.toString("hex");
  const found = hash.hex();
  if (found === expected) return;
  throw new PullError(
    "ARCHIVE_CORRUPT",
    `the NAR of ${path}: expected sha256 ${expected ?? narHash}, found ${found}`,
  );
}

async function* atMost(
  pieces: AsyncIterable<Uint8Array>,
  limit: number,
  path: string,
): AsyncGenerator<Uint8Array> {
  let size = 0;
  for await (const piece of pieces) {
    size += piece.length;
    if (size > limit) {
      throw new PullError("ARCHIVE_CORRUPT", `the NAR of ${path}: expected at most ${limit} bytes`);
    }
    yield piece;
  }
}

/** Whether something is there, and can be looked at. */
function isThere(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch {
    return false;
  }
}
