import type { Log } from "../../core/ports.ts";
import type { TickOutcome } from "../poll/finding.ts";

/** Tells the log what ticks came to; that a stick came or went is told once. */
export class TickLog {
  readonly #absent = new Set<string>();
  /** The failed attempt whose consequence was told last. */
  #told: string | null = null;
  readonly #log: Log;

  constructor(log: Log) {
    this.#log = log;
  }

  /** Tells one tick's outcome. */
  tell(outcome: TickOutcome): void {
    for (const verdict of outcome.verdicts) {
      const { mirror, code, message } = verdict;
      this.#tellPresence(verdict);
      // A stick is elsewhere most of the time.
      if (code === "MIRROR_ABSENT") continue;
      if (code !== undefined) this.#log.warn(`${mirror}: ${message}`, { code });
    }
    const { error } = outcome;
    if (error && error.code !== "INTERRUPTED") {
      const alreadySaid = outcome.verdicts.some(({ code }) => code === error.code);
      if (!alreadySaid) this.#log.error(error.message, { code: error.code });
    }
    this.#tellDecision(outcome);
    this.#tellNextTry(outcome);
  }

  /** Tells once of each failed attempt when the next one comes, or that none does. */
  #tellNextTry({ record: { state } }: TickOutcome): void {
    if (state.name !== "Failed") {
      this.#told = null;
      return;
    }
    const { release, retryAt, attempts, gaveUp = false } = state;
    const attempt = `${release.digest} ${retryAt} ${gaveUp}`;
    if (attempt === this.#told) return;
    this.#told = attempt;
    const tries = attempts === 1 ? "1 attempt" : `${attempts} attempts`;
    if (gaveUp) {
      this.#log.warn(
        `release ${release.sequence} is given up after ${tries}: it waits for \`nixos-pull apply\` ` +
          "or another release",
      );
    } else {
      this.#log.info(`release ${release.sequence} is tried again at ${retryAt}, after ${tries}`);
    }
  }

  #tellPresence({ mirror, code, message }: TickOutcome["verdicts"][number]): void {
    if (code === "MIRROR_ABSENT") {
      if (!this.#absent.has(mirror)) this.#log.info(`${mirror}: ${message}`, { code });
      this.#absent.add(mirror);
    } else if (this.#absent.delete(mirror)) {
      this.#log.info(`${mirror}: there again`);
    }
  }

  #tellDecision({ decision, release }: TickOutcome): void {
    const log = this.#log;
    switch (decision?.kind) {
      case "denied":
        log.warn(`release ${release?.sequence} is not tried again: ${decision.reason.message}`, {
          code: "RELEASE_DENIED",
        });
        break;
      case "drifted":
        log.warn(`this host was changed by hand and is left alone: found ${decision.found}`);
        break;
      case "waiting":
        for (const { reason, message } of decision.waits) {
          log.info(`release ${release?.sequence} waits: ${message}`, { code: reason });
        }
        break;
      case "active":
      case "adopt":
      case "backoff":
      case "update":
      case undefined:
        log.debug(`poll: ${decision?.kind ?? "nothing"}`);
        break;
      default:
        decision satisfies never;
    }
  }
}
