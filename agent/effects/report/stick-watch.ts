import { stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { directoriesAmong } from "../../core/formats/mirror-address.ts";
import type { StickWatch } from "../../core/ports.ts";

/** A longer look is not waited for: the file system may be that of a server that is down. */
const LOOK_MS = 1_000;

interface Watched {
  readonly address: string;
  readonly manifest: string;
  /** Identity of the manifest at the last look; null if there was none. */
  seen: string | null;
  changed: boolean;
  /** A look that is not finished yet. There is never more than one. */
  looking: Promise<void> | null;
}

/**
 * Notices when a mirror in a directory appears, such as a stick that is plugged in, and when its
 * manifest is replaced. It asks for the state of one file and opens nothing.
 */
export class DirectoryStickWatch implements StickWatch {
  readonly #watched: readonly Watched[];

  constructor(mirrors: readonly string[], channel: string) {
    this.#watched = directoriesAmong(mirrors).map(({ address, directory }) => ({
      address,
      manifest: join(directory, "channels", channel, "manifest.json"),
      ...{ seen: null, changed: false, looking: null },
    }));
  }

  /** Whether there is nothing to watch. */
  get isIdle(): boolean {
    return this.#watched.length === 0;
  }

  /** Addresses of the mirrors that appeared or changed since the last look. */
  async look(): Promise<string[]> {
    const limit = new AbortController();
    const looks = this.#watched.map((one) => {
      one.looking ??= look(one);
      return one.looking;
    });
    await Promise.race([
      Promise.all(looks),
      sleep(LOOK_MS, undefined, { signal: limit.signal }).catch(() => undefined),
    ]);
    limit.abort();
    const news = this.#watched.filter(({ changed }) => changed);
    for (const one of news) one.changed = false;
    return news.map(({ address }) => address);
  }
}

async function look(one: Watched): Promise<void> {
  const found = await stat(one.manifest).then(
    ({ dev, ino, size, mtimeMs }) => `${dev}:${ino}:${size}:${mtimeMs}`,
    () => null,
  );
  if (found !== null && found !== one.seen) one.changed = true;
  one.seen = found;
  one.looking = null;
}
