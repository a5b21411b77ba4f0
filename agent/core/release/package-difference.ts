import { storePathName } from "../formats/store-path.ts";

/**
 * Which packages differ between two closures, by the names of their store paths: `openssl
 * 3.0.15 → 3.0.16`. Nix names a path NAME-VERSION, and the version begins with the first digit
 * after a dash (Nix manual, builtins.parseDrvName).
 */

/** A path of a closure. */
export interface SizedPath {
  /** `/nix/store/HASH-NAME`, or `HASH-NAME`. */
  readonly storePath: string;
  /** Bytes that it takes in the store. */
  readonly narSize: number;
}

/** One package of both closures, or of either. */
export interface PackageChange {
  readonly name: string;
  /** `rebuilt`: the same versions, made otherwise. */
  readonly kind: "added" | "removed" | "changed" | "rebuilt";
  /** Its versions, sorted; an empty text for a path without a version, such as a file of /etc. */
  readonly before: readonly string[];
  readonly after: readonly string[];
  readonly beforeBytes: number;
  readonly afterBytes: number;
}

interface Package {
  readonly versions: Set<string>;
  readonly paths: Set<string>;
  bytes: number;
}

/** What differs between two closures, by name. */
export function packageChanges(
  before: readonly SizedPath[],
  after: readonly SizedPath[],
): PackageChange[] {
  const [old, next] = [packagesOf(before), packagesOf(after)];
  const names = [...new Set([...old.keys(), ...next.keys()])].sort();
  return names.flatMap((name) => changeOf(name, old.get(name), next.get(name)) ?? []);
}

function changeOf(
  name: string,
  old: Package | undefined,
  next: Package | undefined,
): PackageChange | null {
  const [before, after] = [sorted(old?.versions), sorted(next?.versions)];
  const isSame = before.join("\n") === after.join("\n");
  if (old && next && isSame && sorted(old.paths).join() === sorted(next.paths).join()) return null;
  const kind = !old ? "added" : !next ? "removed" : isSame ? "rebuilt" : "changed";
  return {
    ...{ name, kind, before, after },
    ...{ beforeBytes: old?.bytes ?? 0, afterBytes: next?.bytes ?? 0 },
  };
}

function packagesOf(paths: readonly SizedPath[]): Map<string, Package> {
  const packages = new Map<string, Package>();
  for (const { storePath, narSize } of paths) {
    const file = storePathName(storePath);
    const { name, version } = parseName(file.slice(33));
    const known = packages.get(name) ?? { versions: new Set(), paths: new Set(), bytes: 0 };
    known.versions.add(version);
    known.paths.add(file);
    known.bytes += narSize;
    packages.set(name, known);
  }
  return packages;
}

/** Outputs of a package, which its paths have at their end. */
const OUTPUT = /-(bin|dev|lib|out|man|doc|info|devdoc|debug|data|static|getent|dist|modules)$/;

/** The name and version of a path, without its output. */
export function parseName(full: string): { name: string; version: string } {
  const text = full.replace(OUTPUT, "");
  const at = /-(?=\d)/.exec(text)?.index;
  if (at === undefined || at === 0) return { name: text, version: "" };
  return { name: text.slice(0, at), version: text.slice(at + 1) };
}

function sorted(texts: ReadonlySet<string> | undefined): string[] {
  return [...(texts ?? [])].sort();
}
