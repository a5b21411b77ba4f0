import { PullError } from "../../core/errors.ts";
import type { FoundSecret } from "../../core/publish/secret-scan.ts";
import { STORE_DIRECTORY, STORE_PATH_NAME, storePathName } from "../../core/formats/store-path.ts";

/**
 * A place that may hold a private key: the name of a store path without its hash, which changes
 * with every build, and a file or directory in it. An empty `file` stands for the whole path.
 */
export interface AllowedSecret {
  readonly name: string;
  readonly file: string;
}

/** Most files that a message lists. */
const MAX_LISTED = 20;

const ALLOWED = /^(?<name>[0-9a-zA-Z+_?=-][0-9a-zA-Z+._?=-]{0,210})(?:\/(?<file>[^/].*))?$/s;

/**
 * Reads NAME or NAME/FILE, such as `python3-3.11.9/lib/python3.11/test`, or the same with
 * the whole store path. Throws USAGE.
 */
export function parseAllowedSecret(text: string): AllowedSecret {
  const below = text.startsWith(`${STORE_DIRECTORY}/`)
    ? text.slice(STORE_DIRECTORY.length + 1)
    : text;
  const { name, file = "" } = ALLOWED.exec(below.replace(/\/+$/, ""))?.groups ?? {};
  if (name === undefined) {
    throw new PullError(
      "USAGE",
      `--allow-secrets: expected a store path's name, with or without a file in it, found ${JSON.stringify(text)}`,
    );
  }
  return { name: STORE_PATH_NAME.test(name) ? withoutHash(name) : name, file };
}

/** Decides which store paths with private keys may be published. */
export class SecretGuard {
  readonly #allowed: readonly AllowedSecret[];
  readonly #onWarning: (message: string) => void;
  readonly #refused: string[] = [];

  constructor(allowed: readonly AllowedSecret[], onWarning: (message: string) => void) {
    this.#allowed = allowed;
    this.#onWarning = onWarning;
  }

  /**
   * Whether a path with these private keys may be published. A package (a directory whose name
   * has a version) may, with a warning: many packages have keys for their tests. Other paths come
   * from a configuration, and there a readable key is a mistake.
   */
  permits(storePath: string, found: readonly FoundSecret[]): boolean {
    const name = withoutHash(storePathName(storePath));
    const open = found.filter(
      ({ file }) => !this.#allowed.some((allowed) => covers(allowed, name, file)),
    );
    const described = open.map(({ kind, file }) => `${describePlace(storePath, file)}: ${kind}`);
    const refused = open.some(({ file }) => !isPackage(name, file));
    if (refused) this.#refused.push(...described);
    else if (described.length > 0) {
      this.#onWarning(`these look like a package's own private keys: ${listed(described, ", ")}`);
    }
    return !refused;
  }

  /** Throws SECRET_IN_CLOSURE if a path was not permitted, naming every file. */
  check(): void {
    if (this.#refused.length === 0) return;
    throw new PullError(
      "SECRET_IN_CLOSURE",
      `expected no private keys, but everybody who reads the mirror, and every user of a host, could read:\n` +
        `  ${listed(this.#refused, "\n  ")}\n` +
        "Keep it encrypted in the closure (agent/docs/publishing.md, Secrets). If it is no secret, " +
        "name it with --allow-secrets NAME/FILE: the store path without its hash",
    );
  }
}

function listed(places: readonly string[], separator: string): string {
  const more = places.length - MAX_LISTED;
  return [...places.slice(0, MAX_LISTED), ...(more > 0 ? [`and ${more} more`] : [])].join(
    separator,
  );
}

function withoutHash(name: string): string {
  return name.slice(33);
}

function covers(allowed: AllowedSecret, name: string, file: string): boolean {
  if (allowed.name !== name) return false;
  return allowed.file === "" || file === allowed.file || file.startsWith(`${allowed.file}/`);
}

/** NAME-VERSION, and a directory: a single file may be a copied key, whatever its name is. */
function isPackage(name: string, file: string): boolean {
  return file !== "" && /-\d/.test(name) && !name.startsWith("nixos-system-");
}

/** Names of files in a store path may hold any bytes. */
function describePlace(storePath: string, file: string): string {
  const path = `${STORE_DIRECTORY}/${storePathName(storePath)}${file === "" ? "" : `/${file}`}`;
  return /^[\x20-\x7e]*$/.test(path) ? path : JSON.stringify(path);
}
