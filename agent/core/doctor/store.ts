import type { PublicKey } from "../formats/signing-key.ts";
import { whyNotImported, type StoreAccess } from "../transfer/store-access.ts";
import { about, type CheckId, type CheckResult } from "./result.ts";

/** The oldest Nix with which this program is tested. */
const OLDEST_NIX = [2, 8] as const;

/** The version of Nix, as `nix --version` says it. */
export function judgeNixVersion(text: string): CheckResult {
  const it = about("store.nix");
  const [, major, minor] = /\b(\d+)\.(\d+)/.exec(text) ?? [];
  if (major === undefined || minor === undefined) {
    return it.untried(`the version is not understood: ${text}`);
  }
  const [oldest, least] = OLDEST_NIX;
  const isOld = Number(major) < oldest || (Number(major) === oldest && Number(minor) < least);
  if (!isOld) return it.passed(text);
  return it.failed(`${text}, which is older than ${OLDEST_NIX.join(".")}`, "update nix.package");
}

/** Whether Nix would take what the keys of this host signed. */
export function judgeStoreTrust(access: StoreAccess, storeKeys: readonly PublicKey[]): CheckResult {
  const it = about("store.trust");
  const why = whyNotImported(access, storeKeys);
  if (why !== null) {
    const advice =
      "add the key to nix.settings.trusted-public-keys, or the user to nix.settings.trusted-users";
    return it.failed(why, advice, "IMPORT_FAILED");
  }
  if (access.via === "own")
    return it.passed("Nix writes to the store itself, with this host's keys");
  if (access.trusted) return it.passed(`the Nix daemon trusts user ${access.user}`);
  if (!access.requiresSignatures) return it.passed("the Nix daemon asks for no signatures");
  if (access.trusted === null || access.keys === null) {
    return it.untried("Nix does not tell whom its daemon trusts");
  }
  return it.passed("the Nix daemon has one of the keys itself");
}

/** Whether Nix knows a system that this host needs. */
export function judgeSystem(id: CheckId, toplevel: string | null, isValid: boolean): CheckResult {
  const it = about(id);
  if (toplevel === null) {
    return it.failed("there is none", "switch this host to a system: `nixos-pull apply`");
  }
  if (isValid) return it.passed(toplevel);
  return it.failed(
    `Nix does not know ${toplevel}, so that a garbage collection may remove it`,
    "`nixos-pull repair`",
    "STORE_DAMAGED",
  );
}

/** Whether there is a system to go back to; `others` are systems of earlier generations and roots. */
export function judgeWayBack(
  others: readonly { readonly what: string; readonly isValid: boolean }[],
  generations: number,
): CheckResult {
  const it = about("store.way-back");
  const good = others.find(({ isValid }) => isValid);
  if (good) return it.passed(good.what);
  if (others.length === 0 && generations <= 1) {
    return it.passed("none yet: this host has had one system only");
  }
  return it.failed(
    others.length === 0
      ? "no generation before this one is left"
      : `Nix does not know ${others.map(({ what }) => what).join(", ")}`,
    "keep at least 2 generations (generations.keep); the next release brings another way back",
  );
}
