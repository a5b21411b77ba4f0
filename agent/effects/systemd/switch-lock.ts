import { readFile, stat } from "node:fs/promises";

/** The lock that every switch-to-configuration takes. */
const LOCK_FILE = "/run/nixos/switch-to-configuration.lock";

/**
 * Whether somebody holds the lock of switch-to-configuration now, as far as the kernel lists it
 * (proc_locks(5)); false if that cannot be seen.
 */
export async function isSwitchLocked(
  lockFile = LOCK_FILE,
  locks = "/proc/locks",
): Promise<boolean> {
  try {
    const [{ ino }, text] = await Promise.all([stat(lockFile), readFile(locks, "utf8")]);
    // "1: FLOCK  ADVISORY  WRITE 711 00:19:524 0 EOF"; who only waits has "->" after the number.
    return text
      .split("\n")
      .some(
        (line) => /^\d+: FLOCK\s/.test(line) && line.split(/\s+/)[5]?.split(":")[2] === `${ino}`,
      );
  } catch {
    return false;
  }
}
