import {
  narMembersOf,
  type ArchiveContents,
  type OtherArchive,
} from "../../core/formats/archive-index.ts";
import { positionOf, type Manifest, type ReleasedSystem } from "../../core/formats/manifest.ts";
import type { Compression, StorePathInfo } from "../../core/formats/narinfo.ts";
import { TAR_BLOCK } from "../../core/formats/tar-layout.ts";
import type { OpenChannel } from "../channel/open-channel.ts";
import type { MirrorWriter } from "../mirror/mirror-writer.ts";
import type { NarPlace, PackablePath } from "./packable-closure.ts";

/** A release on the mirror with its hosts' indexes, newest first in lists. */
export interface KnownRelease {
  readonly manifest: Manifest;
  readonly hosts: ReadonlyMap<string, ArchiveContents>;
}

interface KnownNar extends NarPlace {
  readonly fileSha256: string;
  readonly fileSize: number;
  readonly compression: Compression;
}

/** The NARs in the archives of a mirror's retained releases, which need not be stored again. */
export class NarLibrary {
  readonly #writer: MirrorWriter;
  readonly #byNarHash = new Map<string, KnownNar[]>();
  /** By the sha256 of the archive that has the index. */
  readonly #contents = new Map<string, ArchiveContents>();
  /** Archives, oldest first. */
  readonly #archives: string[] = [];
  readonly #intact = new Map<string, Promise<boolean>>();
  /** Newest first. */
  readonly releases: readonly KnownRelease[];

  private constructor(writer: MirrorWriter, releases: readonly KnownRelease[]) {
    this.#writer = writer;
    this.releases = releases;
    // Take a NAR from its oldest archive, so that archives refer only to earlier ones.
    for (const { hosts } of releases.toReversed()) {
      for (const contents of hosts.values()) this.#add(contents);
    }
  }

  /**
   * Reads the indexes of a channel's retained releases that trusted keys signed, and of the
   * current one.
   */
  static async open(
    { writer, channel, trust }: OpenChannel,
    current: Manifest | null,
  ): Promise<NarLibrary> {
    const retained = await writer.retained.signedReleases(channel, trust);
    const manifests = new Map<string, Manifest>();
    for (const manifest of [...(current ? [current] : []), ...retained.map((it) => it.manifest)]) {
      const { epoch, sequence } = positionOf(manifest);
      manifests.set(`${epoch}-${sequence}`, manifest);
    }
    const read = new Map<string, ArchiveContents | null>();
    const releases: KnownRelease[] = [];
    for (const manifest of manifests.values()) {
      const hosts = new Map<string, ArchiveContents>();
      for (const [hostname, entry] of Object.entries(manifest.hosts)) {
        const key = entry.archive.sha256;
        const contents = read.has(key) ? read.get(key) : await writer.readContents(entry);
        read.set(key, contents ?? null);
        if (contents) hosts.set(hostname, contents);
      }
      releases.push({ manifest, hosts });
    }
    return new NarLibrary(writer, releases);
  }

  #add(contents: ArchiveContents): void {
    const { sha256, size, index } = contents;
    this.#contents.set(sha256, contents);
    for (const older of [...contents.elsewhere.map(({ archive }) => archive.sha256), sha256]) {
      if (!this.#archives.includes(older)) this.#archives.push(older);
    }
    const places = new Map<string, NarPlace>();
    for (const { archive, nars } of contents.elsewhere) {
      for (const { body, headerOffset } of nars) {
        places.set(body.sha256, { archive, offset: headerOffset + TAR_BLOCK });
      }
    }
    for (const { body, headerOffset } of narMembersOf({ ...contents, elsewhere: [] })) {
      places.set(body.sha256, { archive: { sha256, size }, offset: headerOffset + TAR_BLOCK });
    }
    for (const { narHash, nar } of index.paths) {
      const place = places.get(nar.sha256);
      const known = this.#byNarHash.get(narHash) ?? [];
      if (!place || known.some(({ archive }) => archive.sha256 === place.archive.sha256)) continue;
      const facts = { fileSha256: nar.sha256, fileSize: nar.size, compression: index.compression };
      this.#byNarHash.set(narHash, [...known, { ...place, ...facts }]);
    }
  }

  /** What a retained release's index says of a system's archive, if it could be read. */
  contentsOf({ archive }: Pick<ReleasedSystem, "archive">): ArchiveContents | null {
    return this.#contents.get(archive.sha256) ?? null;
  }

  /** A number that is smaller for older archives. An unknown archive is the newest. */
  ageOf(sha256: string): number {
    const at = this.#archives.indexOf(sha256);
    return at < 0 ? this.#archives.length : at;
  }

  /** The path with the place of its NAR, or null if no intact archive has it so compressed. */
  async find(info: StorePathInfo, compression: Compression): Promise<PackablePath | null> {
    for (const known of this.#byNarHash.get(info.narHash) ?? []) {
      if (known.compression !== compression || !(await this.#isIntact(known.archive))) continue;
      const { archive, offset, fileSha256, fileSize } = known;
      return { ...info, url: "", compression, fileSha256, fileSize, place: { archive, offset } };
    }
    return null;
  }

  /** Whether the archive has its hash. It is read once, and only if it would be used. */
  #isIntact(archive: OtherArchive): Promise<boolean> {
    const known = this.#intact.get(archive.sha256) ?? this.#look(archive);
    this.#intact.set(archive.sha256, known);
    return known;
  }

  async #look(archive: OtherArchive): Promise<boolean> {
    return (await this.#writer.hasArchive(archive)) && this.#writer.isArchiveWhole(archive);
  }
}
