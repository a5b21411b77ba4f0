import { readIndex, type ArchiveContents } from "../../core/formats/archive-index.ts";
import { covers, type ByteRange } from "../../core/formats/byte-ranges.ts";
import { PullError } from "../../core/errors.ts";
import { systemsOf, type HostEntry, type ReleasedSystem } from "../../core/formats/manifest.ts";
import type { Report } from "../../core/formats/report.ts";
import { readCompressedIndex } from "../../core/transfer/compressed-index.ts";
import { mergeNeeds, needOf, type ArchiveNeed } from "../../core/transfer/stick-plan.ts";
import type { WantedArchive } from "./archive-copy.ts";
import type { ChosenRelease } from "./choose-releases.ts";
import type { CopiedHost, CopyOptions } from "./copy-options.ts";
import type { KnownSystems } from "./known-systems.ts";
import type { MirrorReader } from "./mirror-reader.ts";

/** What settles which bytes a copy takes. */
export type PlanOptions = Pick<
  CopyOptions,
  "source" | "reports" | "storeKeys" | "deltas" | "signal" | "onProgress"
>;

/** Gathers what all hosts need, archive by archive. */
export class CopyPlan {
  readonly #options: PlanOptions;
  readonly #known: KnownSystems;
  readonly #wanted = new Map<string, WantedArchive>();
  /** Which bytes of an archive the source has; null for all. Each archive is asked for once. */
  readonly #parts = new Map<string, readonly ByteRange[] | null>();

  /** `known` tells what reporting hosts have. */
  constructor(options: PlanOptions, known: KnownSystems) {
    this.#options = options;
    this.#known = known;
  }

  /** Adds what a release's hosts need; gives what each of them gets. */
  async add({ channel, signed, hosts }: Omit<ChosenRelease, "older">): Promise<CopiedHost[]> {
    const { onProgress, reports } = this.#options;
    const copied: CopiedHost[] = [];
    /** Hosts with the same systems and no report need the same. */
    const unreported = new Map<string, number | null>();
    for (const hostname of hosts ?? Object.keys(signed.manifest.hosts)) {
      const entry = signed.manifest.hosts[hostname];
      if (!entry) continue;
      onProgress({ phase: "index", hostname });
      const report = latest(reports, channel, hostname);
      if (report) {
        copied.push({ hostname, ...(await this.#addReported(entry, report)) });
        continue;
      }
      const key = systemsOf(entry)
        .map(({ archive, toplevel }) => `${archive.sha256} ${toplevel}`)
        .join(" ");
      const known = unreported.get(key);
      const members = known === undefined ? await this.#addSystems(entry, null) : known;
      unreported.set(key, members);
      copied.push({ hostname, members });
    }
    return copied;
  }

  /** What the destination lacks, with what it has of it, and how many archives it has already. */
  async missing(
    destination: Pick<MirrorReader, "heldParts">,
  ): Promise<{ wanted: WantedArchive[]; present: number }> {
    const wanted: WantedArchive[] = [];
    let present = 0;
    for (const archive of this.#wanted.values()) {
      const held = await destination.heldParts(archive);
      const isHere =
        held === null || (held && archive.ranges?.every((range) => covers(held, range)) === true);
      if (isHere) present++;
      else wanted.push({ ...archive, held: archive.ranges === null ? [] : (held ?? []) });
    }
    return { wanted, present };
  }

  async #addReported(entry: HostEntry, report: Report): Promise<Omit<CopiedHost, "hostname">> {
    const { source, signal } = this.#options;
    const held = await this.#known.heldBy(report, signal);
    const members = await this.#addSystems(entry, held);
    const note = `${source.address} does not know the systems that its report names`;
    return { members, ...(held === null && { note }) };
  }

  /** A host that has to switch to other systems first needs those too. */
  async #addSystems(entry: HostEntry, held: ReadonlySet<string> | null): Promise<number | null> {
    let members: number | null = null;
    for (const system of systemsOf(entry)) {
      const some = await this.#addSystem(system, held);
      members = some === null ? members : (members ?? 0) + some;
    }
    return members;
  }

  async #addSystem(
    system: ReleasedSystem,
    held: ReadonlySet<string> | null,
  ): Promise<number | null> {
    const { source, storeKeys, signal, deltas } = this.#options;
    const { archive } = system;
    const compressed = await readCompressedIndex(source, system, signal);
    const contents = readIndex(compressed, system, storeKeys);
    const parts = await this.#partsOf(contents);
    const need = needOf(contents, archive.index.size, { held, deltas, parts });
    for (const one of need.archives) {
      this.#want(one, one.sha256 === archive.sha256 ? [archive.index] : []);
    }
    return need.members;
  }

  /** Adds a need to those that are known of the same archive. */
  #want(need: ArchiveNeed, indexes: WantedArchive["indexes"]): void {
    const known = this.#wanted.get(need.sha256);
    if (known && known.size !== need.size) {
      throw new PullError(
        "INDEX_INVALID",
        `archive ${need.sha256}: one release says it has ${known.size} bytes, another ${need.size}`,
      );
    }
    const all = [...(known?.indexes ?? []), ...indexes];
    this.#wanted.set(need.sha256, {
      ...(known ? mergeNeeds(known, need) : need),
      indexes: [...new Map(all.map((index) => [index.sha256, index])).values()],
      held: [],
    });
  }

  /** Of the archives that a closure lies in, those that the source has in part. */
  async #partsOf({
    sha256: own,
    elsewhere,
  }: ArchiveContents): Promise<Map<string, readonly ByteRange[]>> {
    const found = new Map<string, readonly ByteRange[]>();
    for (const sha256 of [own, ...elsewhere.map(({ archive }) => archive.sha256)]) {
      let parts = this.#parts.get(sha256);
      if (parts === undefined) {
        parts = (await this.#options.source.heldParts?.(sha256)) ?? null;
        this.#parts.set(sha256, parts);
      }
      if (parts) found.set(sha256, parts);
    }
    return found;
  }
}

/** A host's newest report in a channel. */
function latest(reports: readonly Report[], channel: string, hostname: string): Report | undefined {
  return reports
    .filter((report) => report.channel === channel && report.hostname === hostname)
    .sort((a, b) => Date.parse(b.at) - Date.parse(a.at))[0];
}
