import { createHash } from "node:crypto";
import { PullError } from "../errors.ts";

/** Throws ARCHIVE_CORRUPT, naming `what`, unless the bytes have this sha256 (hex). */
export function expectSha256(bytes: Uint8Array, expected: string, what: string): void {
  const found = createHash("sha256").update(bytes).digest("hex");
  if (found === expected) return;
  throw new PullError("ARCHIVE_CORRUPT", `${what}: expected sha256 ${expected}, found ${found}`);
}
