import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  MAX_BASES,
  type IndexedPath,
  type OtherArchive,
} from "../../core/formats/archive-index.ts";
import { encodeCounterpart, findCounterparts, replacementsFor } from "../../core/transfer/delta.ts";
import { PullError } from "../../core/errors.ts";
import { rewriteHashes } from "../../core/transfer/hash-rewriter.ts";
import type { Compression } from "../../core/formats/narinfo.ts";
import { TAR_BLOCK } from "../../core/formats/tar-layout.ts";
import { drain, streamProcess } from "../../effects/process/subprocess.ts";
import type { PackableClosure, PackablePath } from "./archive-packer.ts";
import { packBlob } from "./blob-archive.ts";
import type { KnownRelease, NarLibrary } from "./nar-library.ts";
import { parallelMap } from "../../effects/process/parallel-map.ts";

/** Name of the one member of an archive of deltas. */
const MEMBER = "deltas";

/** Larger NARs are not compared: both sides would need several times as much memory. */
const MAX_NAR_BYTES = 128 * 1024 ** 2;

/** A delta is worth its place in the index where it is at most this part of the NAR. */
const WORTH = 0.75;

/** Bytes that a delta costs beside its own, in the index. */
const OVERHEAD = 60;

/** Two thirds of the level's range: higher ones gain little on what is mostly copies. */
const LEVEL = 9;

const TIMEOUT_MS = 3600 * 1000;

type IndexDelta = NonNullable<IndexedPath["deltas"]>[number];

/** What a closure's index says about older releases, by base name of the path. */
export interface ClosureDeltas {
  readonly was: ReadonlyMap<string, string[]>;
  /** Without the archive, which comes last. */
  readonly deltas: ReadonlyMap<string, Omit<IndexDelta, "archive">[]>;
}

export interface DeltaOptions {
  readonly library: NarLibrary;
  readonly cache: string;
  readonly work: string;
  readonly archivePath: (sha256: string) => string;
  readonly signal?: AbortSignal | undefined;
  readonly onDelta: (done: number, of: number) => void;
}

interface Task {
  readonly path: PackablePath;
  readonly base: { readonly storePath: string; readonly narHash: string };
  readonly compression: Compression;
  readonly replacements: ReadonlyMap<string, string>;
  result: { readonly sha256: string; readonly offset: number; readonly size: number } | null;
}

/**
 * Makes deltas for the paths of these closures that are new against the newest
 * `releases` of the library, several at a time, into one archive. Those that save
 * nothing are left out. Gives what each closure's index has to say, by toplevel, and
 * null for the archive where there is no delta. Throws TOOL_MISSING, …
 */
export async function packDeltas(
  closures: ReadonlyMap<string, { closure: PackableClosure; hostname: string }>,
  releases: readonly KnownRelease[],
  file: string,
  options: DeltaOptions,
): Promise<{ archive: OtherArchive | null; closures: Map<string, ClosureDeltas> }> {
  const tasks = new Map<string, Task>();
  const plans = [...closures].map(([toplevel, { closure, hostname }]) => ({
    toplevel,
    ...planClosure(closure, hostname, releases.slice(0, MAX_BASES), tasks),
  }));
  const blob = join(options.work, "deltas");
  await mkdir(options.work, { recursive: true });
  await runTasks([...tasks.values()], blob, options);
  const made = new Map<string, ClosureDeltas>();
  for (const { toplevel, was, uses } of plans) {
    const deltas = new Map<string, Omit<IndexDelta, "archive">[]>();
    for (const { storePath, base, task } of uses) {
      if (!task.result) continue;
      const { offset, size, sha256 } = task.result;
      const all = deltas.get(storePath) ?? [];
      deltas.set(storePath, [...all, { base, offset: TAR_BLOCK + offset, size, sha256 }]);
    }
    made.set(toplevel, { was, deltas });
  }
  const any = [...tasks.values()].some(({ result }) => result !== null);
  const archive = any ? await packBlob(MEMBER, blob, file) : null;
  await rm(options.work, { recursive: true, force: true });
  return { archive, closures: made };
}

/** Which of a closure's paths came from which, and the tasks that this gives. */
function planClosure(
  closure: PackableClosure,
  hostname: string,
  releases: readonly KnownRelease[],
  tasks: Map<string, Task>,
): { was: Map<string, string[]>; uses: { storePath: string; base: number; task: Task }[] } {
  const was = new Map<string, string[]>();
  const uses: { storePath: string; base: number; task: Task }[] = [];
  const position = new Map(closure.paths.map(({ storePath }, at) => [storePath, at]));
  const paths = closure.paths.map(({ storePath, narSize }) => ({ path: storePath, narSize }));
  for (const [base, release] of releases.entries()) {
    const old = release.hosts.get(hostname);
    if (!old) continue;
    const entries = new Map(old.index.paths.map((entry) => [entry.path, entry]));
    const counterparts = findCounterparts(paths, old.index.paths);
    for (const [path, counterpart] of counterparts) {
      const known = was.get(path) ?? [];
      while (known.length < base) known.push("");
      was.set(path, [...known, encodeCounterpart(path, counterpart)]);
    }
    const indexed = closure.paths.map((info) => ({
      path: info.storePath,
      references: info.references.map((name) => position.get(name) ?? 0),
      was: was.get(info.storePath),
    })) as unknown as IndexedPath[];
    for (const [at, path] of closure.paths.entries()) {
      const entry = indexed[at];
      const counterpart = entries.get(counterparts.get(path.storePath) ?? "");
      if (!entry || !counterpart) continue;
      if (Math.max(path.narSize, counterpart.narSize) > MAX_NAR_BYTES) continue;
      const replacements = replacementsFor({ paths: indexed }, entry, base);
      const key = JSON.stringify([path.storePath, counterpart.path, [...replacements].sort()]);
      const task = tasks.get(key) ?? {
        ...{ path, replacements, compression: old.index.compression, result: null },
        base: { storePath: counterpart.path, narHash: counterpart.narHash },
      };
      tasks.set(key, task);
      uses.push({ storePath: path.storePath, base, task });
    }
  }
  return { was, uses };
}

/** Runs all tasks; deltas that are worth it are appended to `blob` in the tasks' order. */
async function runTasks(
  tasks: readonly Task[],
  blob: string,
  options: DeltaOptions,
): Promise<void> {
  const out = await open(blob, "w", 0o600);
  const results = new Map<Task, string>();
  let offset = 0;
  let appended = 0;
  const append = async (): Promise<void> => {
    // In order, so that the same input gives the same bytes.
    for (let task = tasks[appended]; task && results.has(task); task = tasks[++appended]) {
      const file = results.get(task) ?? "";
      if (file === "") continue;
      const bytes = await readFile(file);
      await rm(file, { force: true });
      if (bytes.length + OVERHEAD > task.path.fileSize * WORTH) continue;
      const sha256 = createHash("sha256").update(bytes).digest("hex");
      await out.appendFile(bytes);
      task.result = { sha256, offset, size: bytes.length };
      offset += bytes.length;
    }
  };
  let appending = Promise.resolve();
  try {
    await parallelMap([...tasks.entries()], async ([at, task]) => {
      results.set(task, await makeDelta(task, join(options.work, String(at)), options));
      appending = appending.then(append);
      await appending;
      options.onDelta(results.size, tasks.length);
    });
  } finally {
    await out.close();
  }
}

/** Makes one delta; gives its file, or "" where the base's NAR is no longer on the mirror. */
async function makeDelta(
  { path, base, compression, replacements }: Task,
  work: string,
  { library, cache, archivePath, signal }: DeltaOptions,
): Promise<string> {
  const old = await library.find({ ...path, ...base }, compression);
  if (!old?.place) return "";
  const [oldFile, newFile, delta] = [`${work}.old`, `${work}.new`, `${work}.delta`];
  const options = { env: process.env as Record<string, string>, timeoutMs: TIMEOUT_MS, signal };
  const source = ({ place, url, fileSize }: PackablePath): AsyncIterable<Buffer> =>
    place
      ? createReadStream(archivePath(place.archive.sha256), {
          ...{ start: place.offset, end: place.offset + fileSize - 1 },
        })
      : createReadStream(join(cache, url));
  const unpack = async (
    from: PackablePath,
    to: string,
    through: ReadonlyMap<string, string>,
  ): Promise<void> => {
    const write = (nar: AsyncIterable<Uint8Array>): Promise<void> =>
      writeAll(to, rewriteHashes(nar, through), from.narSize);
    if (from.compression === "none") await write(source(from));
    else {
      const args = ["-d", "-q", "-c"];
      await streamProcess(from.compression, args, { ...options, input: source(from) }, write);
    }
  };
  try {
    await unpack({ ...old, narSize: MAX_NAR_BYTES }, oldFile, replacements);
    await unpack(path, newFile, new Map());
    const args = ["-q", "-f", `-${LEVEL}`, `--patch-from=${oldFile}`, newFile, "-o", delta];
    await streamProcess("zstd", args, options, drain);
    return delta;
  } finally {
    await rm(oldFile, { force: true });
    await rm(newFile, { force: true });
  }
}

async function writeAll(
  path: string,
  pieces: AsyncIterable<Uint8Array>,
  limit: number,
): Promise<void> {
  const file = await open(path, "w", 0o600);
  try {
    let size = 0;
    for await (const piece of pieces) {
      size += piece.length;
      if (size > limit) throw new PullError("PUBLISH_FAILED", `${path}: more than ${limit} bytes`);
      await file.appendFile(piece);
    }
  } finally {
    await file.close();
  }
}
