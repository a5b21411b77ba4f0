import { readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { PullError, toPullError } from "../core/errors.ts";
import type { HostKeys } from "../core/fleet/report-trust.ts";
import { hostnameSchema } from "../core/formats/manifest.ts";
import { isNotFound } from "../effects/files/missing-file.ts";
import { parsePublicKey, type PublicKey } from "../core/formats/signing-key.ts";

const SUFFIX = ".public";

/**
 * Reads the keys of hosts: from files, from directories, and those `given` on the command line.
 * A file has lines `HOST KEY`, or `KEY` alone if the key is named `host-HOST`, as hosts print it.
 * A directory has a file `HOST.public` for each host. A host may have several keys while its key
 * is being replaced. Throws KEY_INVALID, naming file and line.
 */
export async function readHostKeys(
  paths: readonly string[],
  given: readonly string[] = [],
): Promise<HostKeys> {
  const keys = new Map<string, PublicKey[]>();
  const entries = given.map((text) => ownEntry("--report-key", text));
  for (const path of paths) {
    try {
      entries.push(...(await entriesOf(path)));
    } catch (thrown) {
      const { code, message } = toPullError(thrown);
      if (code === "KEY_INVALID") throw thrown;
      const found = isNotFound(thrown) ? "found nothing" : message;
      throw new PullError(
        "KEY_INVALID",
        `--keys: ${path}: expected a file or directory with keys of hosts, ${found}`,
        { cause: thrown },
      );
    }
  }
  for (const { where, host, text } of entries) {
    keys.set(host, [...(keys.get(host) ?? []), keyAt(where, host, text)]);
  }
  return keys;
}

interface KeyEntry {
  readonly where: string;
  readonly host: string;
  readonly text: string;
}

/** A key whose name says whose it is. */
function ownEntry(where: string, text: string): KeyEntry {
  const host = /^host-([^:]+):/.exec(text)?.[1];
  if (host !== undefined) return { where, host, text };
  throw new PullError(
    "KEY_INVALID",
    `${where}: expected HOST KEY, or a host's key named host-HOST, found ${JSON.stringify(text.split(":")[0])}; ` +
      "`nixos-pull report --public-key` prints it on the host",
  );
}

async function entriesOf(path: string): Promise<KeyEntry[]> {
  if ((await stat(path)).isDirectory()) {
    const names = (await readdir(path)).filter((name) => name.endsWith(SUFFIX)).sort();
    if (names.length === 0) {
      throw new PullError("KEY_INVALID", `--keys: ${path}: expected HOST.public files, found none`);
    }
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
    const words = line.replace(/#.*/, "").trim().split(/\s+/);
    const [host = "", text] = words;
    if (host === "") return [];
    if (text === undefined) return [ownEntry(where, host)];
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
