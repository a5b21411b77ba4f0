import { PullError, toPullError, type ErrorCode } from "../../core/errors.ts";
import type { Mirror } from "../../core/ports.ts";
import type { FetchTools } from "../fetch/closure-fetch.ts";

/** What another mirror may do better; everything else would fail there too. */
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
    case "IO_FAILED": // A stick that was pulled out,
    case "PERMISSION_DENIED": // or one that may not be read.
      return true;
    default:
      return false;
  }
}

/** Tries the mirrors in order. Throws the last one's error, naming what all of them did. */
export async function withFailover<T>(
  { mirrors, log, onArchiveRead }: Pick<FetchTools, "mirrors" | "log" | "onArchiveRead">,
  read: (mirror: Mirror) => Promise<T>,
): Promise<T> {
  const failures: string[] = [];
  for (const [at, mirror] of mirrors.entries()) {
    try {
      const result = await read(mirror);
      onArchiveRead?.(mirror.address, null);
      return result;
    } catch (thrown) {
      const error = toPullError(thrown);
      if (!isMirrorsFault(error.code)) throw error;
      onArchiveRead?.(mirror.address, error);
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
