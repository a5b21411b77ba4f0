import type { Validators } from "../../core/ports.ts";
import type { OfferedRelease } from "../../core/release/offered-release.ts";

/**
 * What this run has verified and parsed of each mirror. If a mirror says that nothing changed
 * since, neither is done again. Everything that depends on the time or on what the host knows
 * (expiry, clock, sequence, revoked keys, turn, windows) is judged in every poll all the same, and
 * another run of the agent verifies everything again.
 */
export class VerifiedOffers {
  readonly #last = new Map<string, { validators: Validators; offered: OfferedRelease }>();

  /** What was verified under these validators, or null. */
  find(mirror: string, validators: Validators): OfferedRelease | null {
    const last = this.#last.get(mirror);
    return last && isSame(last.validators, validators) ? last.offered : null;
  }

  /** Keeps what was verified; without validators there is nothing to find it by. */
  keep(mirror: string, validators: Validators, offered: OfferedRelease): void {
    if (validators.etag === undefined && validators.lastModified === undefined) {
      this.#last.delete(mirror);
    } else {
      this.#last.set(mirror, { validators, offered });
    }
  }
}

function isSame(one: Validators, other: Validators): boolean {
  return one.etag === other.etag && one.lastModified === other.lastModified;
}
