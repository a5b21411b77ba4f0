import type { PublicKey } from "../formats/signing-key.ts";

/** How this program reaches the Nix store, and whose signatures count there. */
export interface StoreAccess {
  /** `own`: Nix writes to the store itself. `daemon`: a Nix daemon does, by its own rules. */
  readonly via: "own" | "daemon";
  /** The name of the user that asks. */
  readonly user: string;
  /** Whether the daemon lets this user choose keys; null if that is not known. */
  readonly trusted: boolean | null;
  /** The `trusted-public-keys` of the host's own Nix configuration; null if they are not known. */
  readonly keys: readonly string[] | null;
  /** Whether the daemon asks for signatures at all (`require-sigs`). */
  readonly requiresSignatures: boolean;
}

/**
 * Why an import of paths that `storeKeys` signed would fail, or null if nothing speaks against it. A
 * daemon that does not trust a user ignores the keys that he names, and takes its own.
 */
export function whyNotImported(
  { via, user, trusted, keys, requiresSignatures }: StoreAccess,
  storeKeys: readonly PublicKey[],
): string | null {
  if (via === "own" || trusted !== false || !requiresSignatures || keys === null) return null;
  if (storeKeys.some(({ text }) => keys.includes(text))) return null;
  const names = storeKeys.map(({ name }) => name).join(", ");
  return (
    `the Nix daemon does not trust user ${user}: expected a key of storeKeys (${names}) in its ` +
    `trusted-public-keys, found ${keys.length === 0 ? "none" : keys.map(nameOf).join(", ")}; add ` +
    `the key to nix.settings.trusted-public-keys, or ${user} to nix.settings.trusted-users`
  );
}

function nameOf(key: string): string {
  return key.split(":", 1)[0] ?? key;
}

/** Whether Nix's `trusted-users` name a user, directly or by one of the user's groups. */
export function isTrustedUser(
  trustedUsers: readonly string[],
  { user, groups }: { readonly user: string; readonly groups: readonly string[] },
): boolean {
  return trustedUsers.some(
    (it) => it === "*" || it === user || (it.startsWith("@") && groups.includes(it.slice(1))),
  );
}
