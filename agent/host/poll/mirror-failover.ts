import { PullError, toPullError, type ErrorCode } from "../../core/errors.ts";
import type { MirrorStandings } from "./mirror-standings.ts";
import type { ArchiveListener, Log, Mirror } from "../../core/ports.ts";

/** What fail-over needs. */
export interface FailoverTools {
  /** In the order in which they are tried. */
  readonly mirrors: readonly Mirror[];
  /** Says which ones are better tried first, and hears how they served. */
  readonly standings?: Pick<MirrorStandings, "order" | "heard"> | undefined;
  readonly log: Pick<Log, "warn">;
  readonly onArchiveRead?: ArchiveListener | undefined;
}

/** Whether another mirror may do better. Everything else would fail there too. */
function isMirrorsFault(code: ErrorCode): boolean {
  switch (code) {
    case "MIRROR_UNREACHABLE":
    case "MIRROR_ABSENT":
    case "MIRROR_NOT_FOUND":
    case "MIRROR_STATUS":
    case "MIRROR_STALLED":
    case "MIRROR_SLOW":
    case "MIRROR_TLS":
    case "MIRROR_REDIRECT":
    case "MIRROR_OVERSIZE":
    case "ARCHIVE_TRUNCATED":
    case "ARCHIVE_PARTIAL":
    case "ARCHIVE_CORRUPT":
    case "ARCHIVE_MEMBER":
    case "NARINFO_MISMATCH":
    case "IO_FAILED": // A stick was pulled out.
    case "PERMISSION_DENIED": // A stick may not be read.
      return true;
    default:
      return false;
  }
}

/**
 * Calls `read` with one mirror after the other until one serves it, those that failed lately last. Throws at once what is
 * no mirror's fault; otherwise an error with the last mirror's code that says what each of
 * them did.
 */
export async function withFailover<T>(
  { mirrors: configured, standings, log, onArchiveRead }: FailoverTools,
  read: (mirror: Mirror) => Promise<T>,
): Promise<T> {
  const failures: string[] = [];
  const mirrors = standings?.order(configured) ?? configured;
  for (const [at, mirror] of mirrors.entries()) {
    try {
      const result = await read(mirror);
      onArchiveRead?.(mirror.address, null);
      return result;
    } catch (thrown) {
      const error = toPullError(thrown);
      if (!isMirrorsFault(error.code)) throw error;
      onArchiveRead?.(mirror.address, error);
      standings?.heard(mirror.address, error);
      failures.push(`${mirror.address}: ${error.message}`);
      if (at === mirrors.length - 1) {
        throw failures.length === 1
          ? error
          : new PullError(error.code, failures.join("; "), { cause: error });
      }
      log.warn(`${mirror.address}: ${error.message}; the next mirror is tried`, {
        code: error.code,
      });
    }
  }
  throw new PullError("MIRROR_UNREACHABLE", "no mirror is configured");
}
