import { createReadStream } from "node:fs";
import { open, readFile, rm, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import {
  MAX_BASES,
  type IndexedPath,
  type OtherArchive,
} from "../../core/formats/archive-index.ts";
import {
  encodeCounterpart,
  findCounterparts,
  replacementsFor,
  type PathHistory,
} from "../../core/transfer/delta.ts";
import { PullError } from "../../core/errors.ts";
import { sha256Hex } from "../../core/formats/sha256.ts";
import { rewriteHashes } from "../../core/transfer/hash-rewriter.ts";
import type { Compression } from "../../core/formats/narinfo.ts";
import { TAR_BLOCK } from "../../core/formats/tar-layout.ts";
import { parallelMap } from "../../effects/process/parallel-map.ts";
import { drain, streamProcess } from "../../effects/process/subprocess.ts";
import { packBlob } from "./blob-archive.ts";
import type { KnownRelease, NarLibrary } from "./nar-library.ts";
import type {
  ClosureDeltas,
  PackableClosure,
  PackablePath,
  UnplacedDelta,
} from "./packable-closure.ts";
import { makeDirectory } from "../../effects/files/make-directory.ts";

/** Name of the one member of an archive of deltas. */
const MEMBER = "deltas";

/** Larger NARs are not compared: both sides would need several times as much memory. */
const MAX_NAR_BYTES = 128 * 1024 ** 2;

/** A delta is kept only if it is at most this part of the compressed NAR. */
const MAX_SHARE = 0.75;

/** Bytes that a delta costs beside its own, in the index. */
const OVERHEAD = 60;

/** Two thirds of the level's range: higher ones gain little on what is mostly copies. */
const LEVEL = 9;

const TIMEOUT_MS = 3600 * 1000;

export interface DeltaOptions {
  /** Finds the NARs of base paths. */
  readonly library: NarLibrary;
  /** Binary cache with the NARs of new paths. */
  readonly cache: string;
  /** Directory for temporary files; made, and removed at the end. */
  readonly work: string;
  /** Opens another archive. */
  readonly openArchive: (sha256: string) => Promise<FileHandle>;
  readonly signal?: AbortSignal | undefined;
  readonly onDelta: (done: number, of: number) => void;
}

/** One delta that may be made. Several closures may use it. */
interface Task {
  readonly path: PackablePath;
  readonly base: { readonly storePath: string; readonly narHash: string };
  readonly compression: Compression;
  readonly replacements: ReadonlyMap<string, string>;
  /** Where it lies among the deltas; null if it was not worth it. */
  result: { readonly sha256: string; readonly offset: number; readonly size: number } | null;
}

/** A closure, and the host whose earlier closures it is compared with. */
export interface HostClosure {
  readonly closure: PackableClosure;
  readonly hostname: string;
}

/**
 * Makes deltas for the paths of these closures that are new since the newest `releases`, several
 * at a time, and puts them into one archive, the new file `file`. Deltas that save nothing are
 * left out. Gives what each closure's index has to say, by toplevel, and null for the archive if
 * there is no delta. Throws TOOL_MISSING, PUBLISH_FAILED, INTERRUPTED.
 */
export async function packDeltas(
  closures: ReadonlyMap<string, HostClosure>,
  releases: readonly KnownRelease[],
  file: string,
  options: DeltaOptions,
): Promise<{ archive: OtherArchive | null; closures: Map<string, ClosureDeltas> }> {
  const tasks = new Map<string, Task>();
  const plans = [...closures].map(([toplevel, host]) => ({
    toplevel,
    ...planClosure(host, releases.slice(0, MAX_BASES), tasks),
  }));
  const blob = join(options.work, "deltas");
  await makeDirectory(options.work);
  await runTasks([...tasks.values()], blob, options);
  const made = new Map<string, ClosureDeltas>();
  for (const { toplevel, was, uses } of plans) {
    const deltas = new Map<string, UnplacedDelta[]>();
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

/** Which of a closure's paths came from which older one, and which tasks make their deltas. */
interface ClosurePlan {
  readonly was: Map<string, string[]>;
  readonly uses: { storePath: string; base: number; task: Task }[];
}

/** Compares a closure with the host's earlier ones. New tasks are added to `tasks`. */
function planClosure(
  { closure, hostname }: HostClosure,
  releases: readonly KnownRelease[],
  tasks: Map<string, Task>,
): ClosurePlan {
  const plan: ClosurePlan = { was: new Map(), uses: [] };
  const position = new Map(closure.paths.map(({ storePath }, at) => [storePath, at]));
  const paths = closure.paths.map(({ storePath, narSize }) => ({ path: storePath, narSize }));
  for (const [base, release] of releases.entries()) {
    const old = release.hosts.get(hostname);
    if (!old) continue;
    const entries = new Map(old.index.paths.map((entry) => [entry.path, entry]));
    const counterparts = findCounterparts(paths, old.index.paths);
    for (const [path, counterpart] of counterparts) {
      const known = plan.was.get(path) ?? [];
      while (known.length < base) known.push("");
      plan.was.set(path, [...known, encodeCounterpart(path, counterpart)]);
    }
    const histories = closure.paths.map((info): PathHistory => {
      const references = info.references.map((name) => position.get(name) ?? 0);
      return { path: info.storePath, references, was: plan.was.get(info.storePath) };
    });
    for (const [at, path] of closure.paths.entries()) {
      const history = histories[at];
      const counterpart = entries.get(counterparts.get(path.storePath) ?? "");
      if (!history || !counterpart) continue;
      if (Math.max(path.narSize, counterpart.narSize) > MAX_NAR_BYTES) continue;
      const replacements = replacementsFor({ paths: histories }, history, base);
      const { compression } = old.index;
      const task = taskFor(tasks, { path, counterpart, replacements, compression });
      plan.uses.push({ storePath: path.storePath, base, task });
    }
  }
  return plan;
}

/** The task for a delta: a new one, unless another closure or release has the same already. */
function taskFor(
  tasks: Map<string, Task>,
  {
    counterpart,
    ...wanted
  }: Pick<Task, "path" | "replacements" | "compression"> & { counterpart: IndexedPath },
): Task {
  const { path: storePath, narHash } = counterpart;
  const key = JSON.stringify([wanted.path.storePath, storePath, [...wanted.replacements].sort()]);
  const task = tasks.get(key) ?? { ...wanted, base: { storePath, narHash }, result: null };
  tasks.set(key, task);
  return task;
}

/** Runs all tasks. Deltas that are worth it are appended to `blob`, in the tasks' order. */
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
      if (bytes.length + OVERHEAD > task.path.fileSize * MAX_SHARE) continue;
      const sha256 = sha256Hex(bytes);
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

/** Makes one delta; gives its file, or "" if the base's NAR is no longer on the mirror. */
async function makeDelta(
  { path, base, compression, replacements }: Task,
  work: string,
  options: DeltaOptions,
): Promise<string> {
  const old = await options.library.find({ ...path, ...base }, compression);
  if (!old?.place) return "";
  const [oldFile, newFile, delta] = [`${work}.old`, `${work}.new`, `${work}.delta`];
  try {
    await unpack({ ...old, narSize: MAX_NAR_BYTES }, replacements, oldFile, options);
    await unpack(path, new Map(), newFile, options);
    const args = ["-q", "-f", `-${LEVEL}`, `--patch-from=${oldFile}`, newFile, "-o", delta];
    await streamProcess("zstd", args, processOptions(options), drain);
    return delta;
  } finally {
    await rm(oldFile, { force: true });
    await rm(newFile, { force: true });
  }
}

function processOptions({ signal }: DeltaOptions) {
  return { env: process.env as Record<string, string>, timeoutMs: TIMEOUT_MS, signal };
}

/** Writes a path's NAR, with these hashes replaced, to a file. */
async function unpack(
  path: PackablePath,
  replacements: ReadonlyMap<string, string>,
  file: string,
  options: DeltaOptions,
): Promise<void> {
  const { place, url, fileSize, compression, narSize } = path;
  const input: AsyncIterable<Buffer> = place
    ? (await options.openArchive(place.archive.sha256)).createReadStream({
        ...{ start: place.offset, end: place.offset + fileSize - 1 },
      })
    : createReadStream(join(options.cache, url));
  const write = (nar: AsyncIterable<Uint8Array>): Promise<void> =>
    writeAll(file, rewriteHashes(nar, replacements), narSize);
  if (compression === "none") await write(input);
  else {
    const args = ["-d", "-q", "-c"];
    await streamProcess(compression, args, { ...processOptions(options), input }, write);
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
