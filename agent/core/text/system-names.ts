import { storePathHash, storePathName } from "../formats/store-path.ts";

/** NixOS names systems `nixos-system-HOSTNAME-VERSION`. */
const NIXOS = "nixos-system-";
/** As many digits of a hash as tell systems apart, unless two begin alike. */
const MIN_DIGITS = 7;

/**
 * Short names for systems: the beginning of the hash, and the name without what all NixOS systems
 * have: `k3v8x2m-web1-26.05`. The beginnings are so long that no two systems have the same one.
 * Gives a function that also takes other store paths, and gives null's name as `nothing`.
 */
export function shortSystemNames(
  systems: readonly (string | null | undefined)[] = [],
): (system: string | null) => string {
  const hashes = [...new Set(systems.flatMap((it) => (it ? [storePathHash(it)] : [])))];
  let digits = MIN_DIGITS;
  while (digits < 32 && new Set(hashes.map((it) => it.slice(0, digits))).size < hashes.length) {
    digits++;
  }
  return (system) => {
    if (system === null) return "nothing";
    const name = storePathName(system).slice(33);
    if (name === "") return system;
    const short = name.startsWith(NIXOS) ? name.slice(NIXOS.length) : name;
    return `${storePathHash(system).slice(0, digits)}-${short}`;
  };
}

/** Whether a store path is called as NixOS calls systems. */
export function isSystem(path: string): boolean {
  return storePathName(path).slice(33).startsWith(NIXOS);
}

/** Store paths in a message, and nothing below them; a full stop after one ends the sentence. */
const STORE_PATH =
  /\/nix\/store\/[0-9a-z]{32}-[0-9a-zA-Z+._?=-]{0,210}[0-9a-zA-Z+_=-](?![0-9a-zA-Z+_=/-])/g;

/** A message with its store paths as `shorten` names them; it may give a path back as it is. */
export function withShortSystems(message: string, shorten: (system: string) => string): string {
  return message.replace(STORE_PATH, (path) => shorten(path));
}
