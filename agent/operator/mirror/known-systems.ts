import { readIndex } from "../../core/formats/archive-index.ts";
import type { TrustPolicy } from "../../core/formats/envelope.ts";
import { toPullError } from "../../core/errors.ts";
import { systemsOf, type HostEntry, type ReleasedSystem } from "../../core/formats/manifest.ts";
import type { Mirror } from "../../core/ports.ts";
import type { Report } from "../../core/formats/report.ts";
import { RootDirectory } from "../../effects/files/root-directory.ts";
import { readCompressedIndex } from "../../core/transfer/compressed-index.ts";
import { RetainedReleases } from "./retained-releases.ts";

/** Systems whose closures a mirror can still tell, by toplevel. */
export class KnownSystems {
  readonly #mirror: Mirror;
  readonly #entries = new Map<string, ReleasedSystem>();
  readonly #paths = new Map<string, Promise<readonly string[] | null>>();

  constructor(mirror: Mirror) {
    this.#mirror = mirror;
  }

  /** Adds the systems of these entries. */
  add(hosts: Iterable<HostEntry>): void {
    for (const system of [...hosts].flatMap(systemsOf)) {
      this.#entries.set(system.toplevel, system);
    }
  }

  /**
   * Adds the systems of all releases that a mirror's directory retains and these keys signed.
   * Without the others, hosts just get more than they need.
   */
  async addRetained(directory: string, trust: TrustPolicy): Promise<void> {
    const retained = new RetainedReleases(new RootDirectory(directory));
    for (const channel of await retained.channels()) {
      for (const { manifest } of await retained.signedReleases(channel, trust)) {
        this.add(Object.values(manifest.hosts));
      }
    }
  }

  /**
   * Base names of the store paths that a host has by its report, or null if none of its systems
   * is known. The host has garbage collector roots for all of these systems.
   */
  async heldBy(report: Report, signal?: AbortSignal): Promise<Set<string> | null> {
    const { release, profile, running, booted } = report;
    const held = new Set<string>();
    for (const toplevel of new Set([release?.toplevel, profile, running, booted])) {
      if (typeof toplevel !== "string") continue;
      for (const path of (await this.#pathsOf(toplevel, signal)) ?? []) held.add(path);
    }
    return held.size > 0 ? held : null;
  }

  #pathsOf(toplevel: string, signal?: AbortSignal): Promise<readonly string[] | null> {
    const known = this.#paths.get(toplevel) ?? this.#readPaths(toplevel, signal);
    this.#paths.set(toplevel, known);
    return known;
  }

  async #readPaths(toplevel: string, signal?: AbortSignal): Promise<readonly string[] | null> {
    const entry = this.#entries.get(toplevel);
    if (!entry) return null;
    try {
      const compressed = await readCompressedIndex(this.#mirror, entry, signal);
      return readIndex(compressed, entry, null).index.paths.map(({ path }) => path);
    } catch (thrown) {
      const error = toPullError(thrown);
      // The archive is pruned or damaged: the system is not known.
      if (/^(MIRROR_NOT_FOUND|ARCHIVE_|INDEX_)/.test(error.code)) return null;
      throw error;
    }
  }
}
