import * as z from "zod";
import { sha256Schema } from "./manifest.ts";
import { COMPRESSIONS, CONTENT_ADDRESS, NAR_HASH, PATH_SIGNATURE } from "./narinfo.ts";
import { storePathNameSchema } from "./store-path.ts";

/** The form of an archive's index, which describes a closure. */
export const INDEX_FORMAT_VERSION = 1;

/** Paths of one closure; a large desktop system has some 10,000. */
export const MAX_PATHS = 200_000;

/** Signatures of one path. */
export const MAX_PATH_SIGNATURES = 32;

/** A counterpart of the same name by its hash alone, of another name in full, or none. */
const COUNTERPART = /^([0-9abcdfghijklmnpqrsvwxyz]{32}(-[0-9a-zA-Z+._?=-]{1,211})?)?$/;

/** Earlier releases that one index may have deltas against. */
export const MAX_BASES = 16;

export const indexedPathSchema = z.strictObject({
  /** Base name of the store path. */
  path: storePathNameSchema,
  narHash: z.string().regex(NAR_HASH, "expected sha256: and 52 base-32 digits"),
  narSize: z.int().positive(),
  /**
   * Positions in `paths` of what this path refers to, ascending. None is greater than
   * the path's own, so that any prefix of the list is closed under references.
   */
  references: z.array(z.int().nonnegative()),
  signatures: z
    .array(z.string().regex(PATH_SIGNATURE, "expected NAME:BASE64"))
    .max(MAX_PATH_SIGNATURES),
  ca: z.string().regex(CONTENT_ADDRESS, "expected a content address").optional(),
  /**
   * The NAR member, and where its contents begin: counted from the end of the index
   * member, or from the start of another archive.
   */
  nar: z.strictObject({
    /** Position in `archives`; absent if the NAR lies in the index's own archive. */
    archive: z.int().nonnegative().optional(),
    offset: z.int().nonnegative(),
    size: z.int().positive(),
    sha256: sha256Schema,
  }),
  /** What the path was in each earlier release that deltas are based on. */
  was: z
    .array(z.string().regex(COUNTERPART, "expected a hash, or HASH-NAME"))
    .max(MAX_BASES)
    .optional(),
  /** Ways to make its NAR out of an earlier one's: bytes of another archive. */
  deltas: z
    .array(
      z.strictObject({
        /** Position in `was`. */
        base: z.int().nonnegative(),
        /** Position in `archives`. */
        archive: z.int().nonnegative(),
        offset: z.int().nonnegative(),
        size: z.int().positive(),
        sha256: sha256Schema,
      }),
    )
    .max(MAX_BASES)
    .optional(),
});

/** Other archives that one index may name; each release of a channel adds a few at most. */
export const MAX_ARCHIVES = 10_000;

export const otherArchiveSchema = z.strictObject({
  sha256: sha256Schema,
  size: z.int().positive(),
});

export const archiveIndexSchema = z.strictObject({
  formatVersion: z.literal(INDEX_FORMAT_VERSION),
  compression: z.enum(COMPRESSIONS),
  /**
   * Other archives of the mirror in which NARs of this closure lie, in the order in which
   * they are best read: oldest first, since paths refer to what was there before them.
   */
  archives: z.array(otherArchiveSchema).max(MAX_ARCHIVES).optional(),
  /** In topological order, dependencies first; the toplevel comes last. */
  paths: z.array(indexedPathSchema).min(1).max(MAX_PATHS),
});

export type ArchiveIndex = z.infer<typeof archiveIndexSchema>;
export type IndexedPath = ArchiveIndex["paths"][number];
/** Another archive in which members lie. */
export type OtherArchive = NonNullable<ArchiveIndex["archives"]>[number];
