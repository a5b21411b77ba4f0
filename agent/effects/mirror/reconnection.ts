import { setTimeout as sleep } from "node:timers/promises";
import { PullError, toPullError } from "../../core/errors.ts";

/** Connections in a row that may break without having brought anything new, after the first. */
const FRUITLESS = 1;

/**
 * What a connection has to bring at least, as a share of what was passed over to get there: a
 * server without ranges that ends each one a byte later would otherwise be read for ever.
 */
const WORTHWHILE_SHARE = 1 / 10;

/** After a connection that brought less than this, the next one is not made at once. */
const WORTHWHILE_BYTES = 64 * 1024;

/** Wait before such a connection: a server that closes every one is not asked in a tight loop. */
const PAUSE_MS = 500;

/** What undici and Node call a connection that the other side, or something on the way, ended. */
const CLOSED = new Set([
  ...["UND_ERR_SOCKET", "UND_ERR_RES_CONTENT_LENGTH_MISMATCH"],
  ...["ECONNRESET", "EPIPE", "ETIMEDOUT", "ENETRESET"],
]);

/**
 * Decides, for one transfer, whether it is taken up again after a connection broke: as long as
 * connections bring something new. One in a row may bring nothing, if it was closed: a
 * connection that is used again may have been closed already. Whoever reads measures the rate
 * over all of them, so that connections that bring next to nothing come to an end too.
 */
export class Reconnections {
  #furthest: number;
  #fruitless = 0;

  /** `from` is the position at which the transfer begins. */
  constructor(from: number) {
    this.#furthest = from;
  }

  /**
   * Hears what ended a connection, up to where the transfer has come, and how many bytes the
   * connection had to pass over. Returns when it is time for another connection; throws what ended
   * this one if there is to be none, INTERRUPTED.
   */
  async after(
    thrown: unknown,
    { reached, skipped = 0 }: { reached: number; skipped?: number },
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const error = toPullError(thrown);
    const brought = reached - this.#furthest;
    if (!isBreak(error)) throw error;
    if (brought > 0 && brought >= skipped * WORTHWHILE_SHARE) {
      this.#furthest = reached;
      this.#fruitless = 0;
    } else {
      this.#fruitless += 1;
      if (this.#fruitless > FRUITLESS || !isClosed(error)) throw error;
    }
    if (brought >= WORTHWHILE_BYTES) return;
    try {
      await sleep(PAUSE_MS, undefined, signal ? { signal } : {});
    } catch (cause) {
      throw new PullError("INTERRUPTED", "stopped while a connection was made anew", { cause });
    }
  }
}

/** Whether an error is a connection that broke, or on which nothing came any more. */
export function isBreak({ code }: PullError): boolean {
  return code === "MIRROR_UNREACHABLE" || code === "MIRROR_STALLED";
}

function isClosed({ cause }: PullError): boolean {
  const { code } = (cause ?? {}) as NodeJS.ErrnoException;
  return code !== undefined && CLOSED.has(code);
}
