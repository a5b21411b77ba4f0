import { readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { PullError } from "../core/errors.ts";
import { hostnameSchema } from "../core/manifest.ts";
import { parsePublicKey, type PublicKey } from "../core/signing-key.ts";

/** The keys that count for each host. */
export type HostKeys = ReadonlyMap<string, readonly PublicKey[]>;

const SUFFIX = ".public";

/**
 * Reads the keys of hosts: from a file with lines `HOST KEY`, or from a directory with a
 * file `HOST.public` for each. A host may have several while its key changes. Throws
 * KEY_INVALID, naming the line, and the operating system's errors.
 */
export async function readHostKeys(paths: readonly string[]): Promise<HostKeys> {
  const keys = new Map<string, PublicKey[]>();
  for (const path of paths) {
    for (const { where, host, text } of await entriesOf(path)) {
      keys.set(host, [...(keys.get(host) ?? []), keyAt(where, host, text)]);
    }
  }
  return keys;
}

interface KeyEntry {
  readonly where: string;
  readonly host: string;
  readonly text: string;
}

async function entriesOf(path: string): Promise<KeyEntry[]> {
  if ((await stat(path)).isDirectory()) {
    const names = (await readdir(path)).filter((name) => name.endsWith(SUFFIX)).sort();
    return Promise.all(
      names.map(async (name) => ({
        where: join(path, name),
        host: name.slice(0, -SUFFIX.length),
        text: (await readFile(join(path, name), "utf8")).trim(),
      })),
    );
  }
  const lines = (await readFile(path, "utf8")).split("\n");
  return lines.flatMap((line, at): KeyEntry[] => {
    const where = `${path}, line ${at + 1}`;
    const words = line.trim().split(/\s+/);
    const [host = "", text = ""] = words;
    if (host === "" || host.startsWith("#")) return [];
    if (words.length !== 2) throw new PullError("KEY_INVALID", `${where}: expected HOST KEY`);
    return [{ where, host, text }];
  });
}

function keyAt(where: string, host: string, text: string): PublicKey {
  if (!hostnameSchema.safeParse(host).success) {
    throw new PullError("KEY_INVALID", `${where}: expected a hostname`);
  }
  try {
    return parsePublicKey(text);
  } catch (cause) {
    throw new PullError("KEY_INVALID", `${where}: ${(cause as Error).message}`, { cause });
  }
}
