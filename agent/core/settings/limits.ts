import * as z from "zod";
import { positiveDurationSchema } from "../text/duration.ts";
import { DEFAULT_DELTA_NAR_BYTES } from "../transfer/delta.ts";

const bytesSchema = z.int().nonnegative();

/** `limits`: bounds on what mirrors and programs may take. */
export const limitsSchema = z
  .strictObject({
    manifestBytes: bytesSchema
      .max(1024 ** 3)
      .default(32 * 1024 ** 2)
      .describe("Longest manifest that is read, in bytes."),
    redirects: z.int().min(0).max(20).default(5).describe("Redirects followed for one file."),
    connectTimeout: positiveDurationSchema.prefault("15s").describe("Time to connect to a mirror."),
    stallTimeout: positiveDurationSchema
      .prefault("60s")
      .describe("Longest time without data from a mirror before the next mirror is tried."),
    importTimeout: positiveDurationSchema.prefault("4h").describe("How long nix copy may take."),
    minRate: bytesSchema
      .default(1024)
      .describe(
        "Bytes a second; the next mirror is tried if a mirror is slower. 0 allows any rate.",
      ),
    rateWindow: positiveDurationSchema
      .prefault("60s")
      .describe("How long a mirror may stay below minRate."),
    maxRate: bytesSchema
      .default(0)
      .describe("Most bytes a second for downloads of archives; 0 sets no bound."),
    stagingBytes: bytesSchema
      .default(0)
      .describe(
        "Most bytes of downloaded NARs that wait for their import; one larger NAR may wait alone. 0: a sixteenth of the closure.",
      ),
    deltaNarBytes: bytesSchema
      .default(DEFAULT_DELTA_NAR_BYTES)
      .describe(
        "Largest NAR, in bytes, that is made out of an older one by a delta; zstd needs about four times that much memory. 0: none.",
      ),
    deltaTimeout: positiveDurationSchema
      .prefault("10m")
      .describe("How long it may take to make one such NAR."),
    reserveBytes: bytesSchema
      .default(256 * 1024 ** 2)
      .describe("Free space that an update must leave on every file system it writes to."),
    retryBase: positiveDurationSchema
      .prefault("1m")
      .describe("First wait after a failed attempt; doubles."),
    retryMax: positiveDurationSchema
      .prefault("6h")
      .describe("Longest wait after a failed attempt."),
  })
  .prefault({})
  .describe("Bounds on what mirrors and programs may take.");
