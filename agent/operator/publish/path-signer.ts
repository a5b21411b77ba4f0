import { pathFingerprint, signPath, type StorePathInfo } from "../../core/formats/narinfo.ts";
import type { SecretKey } from "../../core/formats/signing-key.ts";

/** Signs store paths, each once for each key, however many archives list it. */
export class PathSigner {
  readonly #keys: readonly SecretKey[];
  readonly #known = new Map<string, string[]>();

  constructor(keys: readonly SecretKey[]) {
    this.#keys = keys;
  }

  sign(info: StorePathInfo): string[] {
    const known = this.#known.get(info.storePath);
    if (known) return known;
    const fingerprint = pathFingerprint(info);
    const signatures = this.#keys.map((key) => signPath(key, fingerprint));
    this.#known.set(info.storePath, signatures);
    return signatures;
  }
}
