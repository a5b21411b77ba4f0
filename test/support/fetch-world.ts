import type { SizedPath } from "../../agent/core/release/package-difference.ts";
import { PullError } from "../../agent/core/errors.ts";
import { narFileName } from "../../agent/core/formats/narinfo.ts";
import type { Release } from "../../agent/core/formats/manifest.ts";
import { STORE_DIRECTORY, decodeBase32 } from "../../agent/core/formats/store-path.ts";
import type {
  FetchProgress,
  FetchSummary,
  NarOrder,
  NixStore,
  StoreRepair,
} from "../../agent/core/ports.ts";
import type { StoreAccess } from "../../agent/core/transfer/store-access.ts";
import { parseSettings, type Settings } from "../../agent/core/settings.ts";
import { fetchClosure } from "../../agent/host/fetch/fetch-closure.ts";
import type { FetchTools } from "../../agent/host/fetch/tools.ts";
import { ArchiveMirror, type ArchiveMirrorOptions } from "./archive-mirror.ts";
import { MemoryStaging, fileOf } from "./memory-staging.ts";
import { recordingLog } from "./recording-log.ts";
import { SAMPLE_KEY, type SampleArchive, type SampleWithDeltas } from "./sample-archive.ts";

/** What a store of a fetch in memory may do beside importing. */
export interface FetchWorldOptions {
  readonly limits?: Partial<Settings["limits"]>;
  /** Store paths that are valid from the start, beside the bases of deltas. */
  readonly valid?: readonly string[];
  /** Mirrors by address; with no options they serve the sample's archives. */
  readonly mirrors?: Readonly<Record<string, Partial<ArchiveMirrorOptions> & { ranges?: boolean }>>;
  /** Called in the middle of an import with the names of its paths; may throw. */
  readonly onImport?: (names: string[], signal: AbortSignal | undefined) => unknown;
  /** Called in the middle of making a NAR with the path's name; may throw. */
  readonly onMake?: (name: string, order: NarOrder, signal: AbortSignal) => unknown;
}

/**
 * Everything outside of a fetch, in memory. All of it writes into one list of events, in
 * which store paths, NARs and archives have short names.
 */
export class FetchWorld {
  readonly events: string[] = [];
  readonly log = recordingLog();
  readonly valid: Set<string>;
  /** How Nix reaches the store. */
  access: StoreAccess = {
    ...{ via: "own", user: "root", trusted: null, keys: null, requiresSignatures: true },
  };
  /** What runs, and closures that a preview compares with. */
  running: string | null = null;
  readonly closures = new Map<string, SizedPath[]>();
  readonly roots = new Map<string, string[]>();
  /** Kept indexes by hash. */
  readonly indexes = new Map<string, Uint8Array>();
  /** What patches give, by the patch's text. */
  readonly patched = new Map<string, Buffer>();
  /** Free bytes by file system; a path is on the one that it begins with. */
  readonly free = new Map([
    ["/staging", 1e12],
    ["/store", 1e12],
    ["/state", 1e12],
  ]);
  /** Inodes by file system; without an entry it has no limit. */
  /** How large file systems are that are not huge. */
  readonly total = new Map<string, number>();
  readonly inodes = new Map<string, { free: number; total: number }>();
  readonly progress: FetchProgress[] = [];
  readonly served: string[] = [];
  /** How many attempts that failed brought something. */
  advanced = 0;
  readonly staging = new MemoryStaging((event) => {
    this.say(event);
  });
  readonly mirrors: ArchiveMirror[];
  readonly release: Release;
  canMake = true;
  /** Called while garbage is collected. */
  onCollect: (() => unknown) | null = null;
  /** Collections that were told. */
  /** How many bytes Nix says that a collection freed; null if it says nothing. */
  collectionSays: number | null = null;
  readonly collected: { wanted: number; freed: number }[] = [];
  collect: Settings["generations"]["collect"] = "never";
  /** Whether fetches compare what is valid with its hashes. */
  verify = false;
  /** Valid paths that are not there, and others that are damaged. */
  readonly absent = new Set<string>();
  readonly torn = new Set<string>();
  /** Valid paths that were registered with other contents than the sample has. */
  readonly foreign = new Set<string>();
  /** What the store says is damaged of the paths that it is asked about. */
  damaged: string[] = [];
  /** Fails the calls of these names once. */
  readonly broken = new Map<string, Error>();
  readonly settings: Settings;
  readonly #sample: SampleArchive | SampleWithDeltas;
  readonly #options: FetchWorldOptions;
  readonly #names = new Map<string, string>();

  constructor(sample: SampleArchive | SampleWithDeltas, options: FetchWorldOptions = {}) {
    this.#sample = sample;
    this.#options = options;
    this.release = sample.release;
    const archives = new Map([[sample.release.archive.sha256, sample.bytes]]);
    this.#names.set(sample.release.archive.sha256, "archive");
    this.valid = new Set(options.valid);
    if ("deltaArchive" in sample) {
      const { sha256, bytes } = sample.deltaArchive;
      archives.set(sha256, bytes);
      this.#names.set(sha256, "deltas");
      for (const base of sample.bases) this.valid.add(base);
    }
    for (const { path, nar, narHash } of sample.index.paths) {
      const name = path.slice(33);
      this.#names.set(`${STORE_DIRECTORY}/${path}`, name);
      this.#names.set(narFileName(nar.sha256, sample.index.compression), `${name}.nar`);
      const made = decodeBase32(narHash.slice("sha256:".length), 32)?.toString("hex") ?? "";
      this.#names.set(narFileName(made, "none"), `${name}.made`);
    }
    this.mirrors = Object.entries(options.mirrors ?? { one: {} }).map(([address, changes]) => {
      const mirror = new ArchiveMirror(address, {
        archives,
        onRequest: ({ archive, from, to }) => {
          this.say(`${address}: ${archive} ${from}-${to}`);
        },
        ...changes,
      });
      mirror.ranges = changes.ranges ?? true;
      return mirror;
    });
    const { limits, ...rest } = parseSettings(
      { mirrors: ["https://one.example"], publicKeys: [SAMPLE_KEY.publicKey.text] },
      "web1",
    );
    this.settings = {
      ...{ ...rest, limits: { ...limits, reserveBytes: 1_000, ...options.limits } },
      paths: { ...rest.paths, staging: "/staging", state: "/state" },
    };
  }

  /** Notes what happened, with short names. */
  say(event: string): void {
    let text = event;
    for (const [long, short] of this.#names) text = text.replaceAll(long, short);
    this.events.push(text);
  }

  /** The absolute path with this name. */
  path(name: string): string {
    const entry = this.#sample.index.paths.find(({ path }) => path.slice(33) === name);
    return `${STORE_DIRECTORY}/${entry?.path ?? ""}`;
  }

  /** Name of a path's NAR member. */
  nar(name: string): string {
    const entry = this.#sample.index.paths.find(({ path }) => path.slice(33) === name);
    return narFileName(entry?.nar.sha256 ?? "", this.#sample.index.compression);
  }

  /** The request for the index. */
  get indexRange(): string {
    return `512-${512 + this.release.archive.index.size}`;
  }

  /** Bytes from the header of a path's NAR to the end of another's padding. */
  range(first: string, last = first): string {
    const { size = 0 } =
      this.#sample.index.paths.find(({ path }) => path.slice(33) === last)?.nar ?? {};
    const end = this.narOffset(last) + Math.ceil(size / 512) * 512;
    return `${this.narOffset(first) - 512}-${end}`;
  }

  /** Everything after the index. */
  get wholeRange(): string {
    const { index, size } = this.release.archive;
    return `${512 + Math.ceil(index.size / 512) * 512}-${size}`;
  }

  /** Offset in the archive at which the contents of a path's NAR begin. */
  narOffset(name: string): number {
    const entry = this.#sample.index.paths.find(({ path }) => path.slice(33) === name);
    const { size } = this.release.archive.index;
    return 512 + Math.ceil(size / 512) * 512 + (entry?.nar.offset ?? 0);
  }

  /** Events that begin with one of these words. */
  only(...words: string[]): string[] {
    return this.events.filter((event) => words.some((word) => event.startsWith(word)));
  }

  /** Messages of the log with their level, short names in them. */
  lines(...levels: string[]): string[] {
    return this.log.lines
      .filter(({ level }) => levels.length === 0 || levels.includes(level))
      .map(({ level, message }) => {
        let text = message;
        for (const [long, short] of this.#names) text = text.replaceAll(long, short);
        return `${level}: ${text}`;
      });
  }

  fetch(signal?: AbortSignal): Promise<FetchSummary> {
    return fetchClosure(this.release, this.tools(), { signal, verify: this.verify });
  }

  readonly #furthest = new Map<string, number>();

  tools(): FetchTools {
    return {
      settings: { ...this.settings, generations: { collect: this.collect } },
      onCollected: async (collection) => {
        this.collected.push(collection);
      },
      mirrors: this.mirrors,
      log: this.log,
      store: this.#store(),
      repair: this.#repair(),
      staging: this.staging,
      roots: {
        hold: () => Promise.reject(new Error("a fetch holds only what it imports")),
        held: () => Promise.resolve(null),
        holdAlso: async (name, paths) => {
          this.say(`hold ${paths.join(" ")}`);
          this.roots.set(name, [...(this.roots.get(name) ?? []), ...paths]);
        },
        heldBelow: async (name) => this.roots.get(name) ?? [],
        release: async (name) => {
          this.say(`release ${name}`);
          this.roots.delete(name);
        },
      },
      disk: {
        freeSpace: async (path) => {
          for (const [fileSystem, free] of this.free) {
            if (!path.startsWith(fileSystem)) continue;
            const inodes = this.inodes.get(fileSystem);
            const total = this.total.get(fileSystem) ?? 2e12;
            return { free, fileSystem, total, ...(inodes && { inodes }) };
          }
          throw new Error(`${path} is on no disk`);
        },
      },
      indexes: {
        find: async (sha256) => (this.indexes.has(sha256) ? `kept ${sha256}` : null),
        verified: async () => null,
        keep: async (sha256, { json }) => {
          this.#mayFail("keep");
          this.say("keep index");
          this.indexes.set(sha256, json);
        },
      },
      applyIndexPatch: async (base, patch) => {
        this.#mayFail("patch");
        const text = Buffer.from(patch).toString();
        this.say(`patch ${base} with ${text}`);
        return this.patched.get(text) ?? Buffer.from("{}");
      },
      furthest: this.#furthest,
      deltas: {
        atOnce: 2,
        canMake: async () => this.canMake,
        removeUnfinished: async () => {
          this.say("remove unfinished NARs");
        },
        make: (order, signal) => this.#make(order, signal),
      },
      onProgress: (progress) => {
        this.progress.push(progress);
      },
      onAdvance: () => {
        this.advanced += 1;
      },
      onArchiveRead: (mirror, error) => {
        this.served.push(`${mirror}: ${error?.code ?? "ok"}`);
      },
    };
  }

  #mayFail(call: string): void {
    const error = this.broken.get(call);
    this.broken.delete(call);
    if (error) throw error;
  }

  #store(): NixStore {
    const unused = (): Promise<never> => Promise.reject(new Error("a fetch does not need this"));
    return {
      access: async () => this.access,
      closureOf: async (toplevel) => this.closures.get(toplevel) ?? null,
      invalidPaths: async (paths) => paths.filter((path) => !this.valid.has(path)),
      importPaths: (directory, paths, signal) => this.#import(directory, paths, signal),
      flush: async () => {
        this.#mayFail("flush");
        this.say("flush");
      },
      removeDamaged: async (paths) => {
        this.say(`look at ${paths.join(" ")}`);
        const damaged = this.damaged.filter((path) => paths.includes(path));
        for (const path of damaged) this.valid.delete(path);
        return damaged;
      },
      realPath: (path) => path.replace(/^\/nix\/store/, "/store"),
      collectGarbage: async (bytes) => {
        this.#mayFail("collect");
        this.say(`collect ${bytes}`);
        await this.onCollect?.();
        return this.collectionSays;
      },
      ...{ setProfile: unused, restoreProfile: unused, profileToplevel: async () => null },
      ...{ profileGeneration: unused, findGeneration: unused, pruneGenerations: unused },
      ...{ forgetNewer: unused, splitGenerations: unused },
      ...{ runningToplevel: async () => this.running, bootedToplevel: async () => null },
    };
  }

  #repair(): StoreRepair {
    const isThere = (path: string): boolean => !this.absent.has(path);
    return {
      closures: () => Promise.reject(new Error("a fetch does not need this")),
      absent: async (paths) => paths.filter((path) => !isThere(path)),
      damaged: async (paths) => {
        this.say(`verify ${paths.length} paths`);
        return paths.filter((path) => !isThere(path) || this.torn.has(path));
      },
      registeredHashes: async (paths) =>
        new Map(
          paths.map((path) => {
            const entry = this.#sample.index.paths.find((one) => path.endsWith(one.path));
            return [path, this.foreign.has(path) ? "sha256:other" : (entry?.narHash ?? "")];
          }),
        ),
      mend: async (directory, infos) => {
        const { files } = this.staging.at(directory);
        this.say(`mend ${infos.map(({ storePath }) => storePath.slice(33)).join(" ")}`);
        for (const info of infos) {
          if (!files.has(fileOf(info))) throw new Error(`${info.storePath} is not staged`);
          this.absent.delete(`${STORE_DIRECTORY}/${info.storePath}`);
          this.torn.delete(`${STORE_DIRECTORY}/${info.storePath}`);
        }
      },
    };
  }

  /** Imports as Nix does: everything must be staged, and every reference valid or with it. */
  async #import(
    directory: string,
    paths: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { files, narInfos } = this.staging.at(directory);
    const names = paths.map((path) => path.slice(STORE_DIRECTORY.length + 34));
    this.say(`import ${names.join(" ")}`);
    await this.#options.onImport?.(names, signal);
    if (signal?.aborted) throw new PullError("INTERRUPTED", "nix was stopped");
    for (const path of paths) {
      const info = narInfos.get(path.slice(STORE_DIRECTORY.length + 1));
      const references = info?.references.map((name) => `${STORE_DIRECTORY}/${name}`) ?? [];
      if (!info || !files.has(fileOf(info))) throw new Error(`${path} is not staged`);
      if (!references.every((one) => this.valid.has(one) || paths.includes(one))) {
        throw new Error(`${path} comes before what it refers to`);
      }
    }
    for (const path of paths) this.valid.add(path);
  }

  async #make(order: NarOrder, signal: AbortSignal): Promise<void> {
    const name = order.base.slice(order.base.lastIndexOf("/") + 34);
    const text = Buffer.from(order.bytes).toString("latin1").slice(0, 20);
    this.say(`make ${name} from ${order.base.slice(0, 7)} with ${text}`);
    await this.#options.onMake?.(name, order, signal);
    this.say(`made ${name}`);
    this.staging.put(order.directory, order.file, Buffer.alloc(order.narSize));
  }
}
