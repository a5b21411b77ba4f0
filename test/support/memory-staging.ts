import { createHash } from "node:crypto";
import type { NarMember } from "../../agent/core/formats/archive-index.ts";
import { PullError } from "../../agent/core/errors.ts";
import { narFileName, type NarInfo } from "../../agent/core/formats/narinfo.ts";
import type { Staging, StagingArea } from "../../agent/core/ports.ts";

/** What lies in staging for one archive. */
export interface StagedFiles {
  index: Uint8Array | null;
  /** Whole NARs and other files by name. */
  readonly files: Map<string, Uint8Array>;
  /** The beginnings of NARs by name. */
  readonly parts: Map<string, Uint8Array>;
  /** Narinfos by store path. */
  readonly narInfos: Map<string, NarInfo>;
}

/** Staging in memory. It outlives a fetch as the real one outlives an agent. */
export class MemoryStaging implements StagingArea {
  readonly archives = new Map<string, StagedFiles>();
  /** Most bytes of whole NARs that lay there at a time. */
  mostBytes = 0;
  readonly #say: (event: string) => void;

  constructor(say: (event: string) => void = () => undefined) {
    this.#say = say;
  }

  /** What lies below a directory that `open` gave. */
  at(directory: string): StagedFiles {
    const archive = directory.slice(directory.lastIndexOf("/") + 1);
    const found = this.archives.get(archive);
    if (!found) throw new Error(`${directory}: staging was not prepared`);
    return found;
  }

  /** Puts a whole file there, as a maker of NARs does. */
  put(directory: string, name: string, bytes: Uint8Array): void {
    const { files } = this.at(directory);
    files.set(name, bytes);
    const all = [...files.values()].reduce((sum, { length }) => sum + length, 0);
    this.mostBytes = Math.max(this.mostBytes, all);
  }

  open(archiveSha256: string): Staging {
    const directory = `/staging/${archiveSha256}`;
    const here = (): StagedFiles => this.at(directory);
    const say = this.#say;
    return {
      directory,
      prepare: async () => {
        say("prepare staging");
        for (const name of this.archives.keys()) {
          if (name !== archiveSha256) this.archives.delete(name);
        }
        if (this.archives.has(archiveSha256)) return;
        const empty = { files: new Map(), parts: new Map(), narInfos: new Map() };
        this.archives.set(archiveSha256, { index: null, ...empty });
      },
      readIndex: async () => {
        const { index } = here();
        return index && Buffer.from(index);
      },
      writeIndex: async (compressed) => {
        say("write index");
        here().index = compressed;
      },
      missing: async (wanted) => missingOf(here(), wanted),
      writeNar: async ({ name, body }, have, pieces, onBytes) => {
        const { parts } = here();
        let bytes = Buffer.from(parts.get(name)?.subarray(0, have) ?? []);
        try {
          for await (const piece of pieces) {
            bytes = Buffer.concat([bytes, piece]);
            onBytes(piece.length);
          }
        } catch (error) {
          if (bytes.length > 0) parts.set(name, bytes);
          say(`keep ${bytes.length} bytes of ${name}`);
          throw error;
        }
        parts.delete(name);
        const found = createHash("sha256").update(bytes).digest("hex");
        if (found !== body.sha256)
          throw new PullError("ARCHIVE_CORRUPT", `${name}: found ${found}`);
        say(`stage ${name}`);
        this.put(directory, name, bytes);
      },
      writeNarInfos: async (narInfos) => {
        for (const info of narInfos) here().narInfos.set(info.storePath, info);
      },
      discard: async (narInfos, files) => {
        for (const { storePath } of narInfos) here().narInfos.delete(storePath);
        for (const name of files) here().files.delete(name);
        say(`discard ${files.join(" ")}`.trimEnd());
      },
      holdsNars: async () => {
        const { files, parts } = this.archives.get(archiveSha256) ?? {};
        return (files?.size ?? 0) + (parts?.size ?? 0) > 0;
      },
    };
  }

  async remove(): Promise<void> {
    this.#say("remove staging");
    this.archives.clear();
  }
}

function missingOf({ files, parts }: StagedFiles, wanted: Iterable<NarMember>) {
  const missing = new Map<string, number>();
  for (const { name } of wanted) {
    if (!files.has(name)) missing.set(name, parts.get(name)?.length ?? 0);
  }
  return missing;
}

/** The file that a narinfo says its NAR is in. */
export function fileOf({ fileSha256, compression }: NarInfo): string {
  return narFileName(fileSha256, compression);
}
