import * as z from "zod";
import { PullError } from "../errors.ts";
import { describeIssues } from "../text/schema-issues.ts";
import {
  INDEX_FORMAT_VERSION,
  MAX_ARCHIVES,
  MAX_BASES,
  MAX_PATHS,
  MAX_PATH_SIGNATURES,
  archiveIndexSchema,
  indexedPathSchema,
  otherArchiveSchema,
  type ArchiveIndex,
  type IndexedPath,
  type OtherArchive,
} from "./index-schema.ts";
import { withUnknownKeys } from "./compatibility.ts";
import { JsonReader } from "./json-reader.ts";
import { hasTrustedSignature } from "./narinfo.ts";
import type { PublicKey } from "./signing-key.ts";
import { STORE_DIRECTORY } from "./store-path.ts";
import type { VerifiedSignatures } from "./verified-signatures.ts";

/** How an index is read. */
export interface IndexRules {
  /**
   * What is done about keys that are not known: `ignored` on hosts, since the release would name
   * what they must understand in `requires`; `refused`, if absent.
   */
  readonly unknownKeys?: "ignored" | "refused" | undefined;
  /** `unsigned`: a path with a content address needs no signature. `signed`, if absent. */
  readonly contentAddressed?: "signed" | "unsigned" | undefined;
  /** Knows signatures that were checked before, and learns of those that are checked now. */
  readonly verified?: VerifiedSignatures | undefined;
}

/** An index whose form was checked, path by path. */
export interface ParsedIndex {
  readonly index: ArchiveIndex;
  /** PATH_SIGNATURE for the first path without a trusted signature; null if there is none. */
  readonly untrusted: PullError | null;
}

const openPathSchema = withUnknownKeys(indexedPathSchema, "ignored");
const openArchiveSchema = withUnknownKeys(otherArchiveSchema, "ignored");

/** One path that refers to all others has less than this. */
const MAX_PATH_BYTES = 2 * 1024 * 1024;

const MAX_SMALL_BYTES = 1024;

/**
 * Whoever stole a release key, but no store key, can name so many paths of his own, and costs
 * hosts no more memory than these.
 */
const MAX_UNTRUSTED = 1_000;

/**
 * Reads an index path by path, so that one of any size costs little before it is known to be one.
 * Each path refers to paths before it, and no two have the same hash. With null for keys,
 * signatures are not checked. Throws INDEX_INVALID, FORMAT_UNSUPPORTED, and PATH_SIGNATURE if very
 * many paths are not signed.
 */
export function parseIndex(
  json: Uint8Array,
  trustedKeys: readonly PublicKey[] | null,
  rules: IndexRules,
): ParsedIndex {
  const reader = new JsonReader(json, (part, expected, at) => {
    const name = part === "" ? "top level" : part;
    return invalid(`${name}: expected ${expected} at byte ${at}`);
  });
  if (!reader.isAtObject()) throw invalid("expected a JSON object");
  let formatVersion: number | undefined;
  let compression: ArchiveIndex["compression"] | undefined;
  let archives: OtherArchive[] | undefined;
  const paths = new PathList(trustedKeys, rules);
  const small = (part: string): unknown => reader.value(part, MAX_SMALL_BYTES);
  const { shape } = archiveIndexSchema;
  const isOpen = rules.unknownKeys === "ignored";
  const archiveSchema = isOpen ? openArchiveSchema : otherArchiveSchema;
  const fields = {
    formatVersion: () => {
      const found = small("formatVersion");
      expectKnownVersion(found);
      formatVersion = parsed(shape.formatVersion, found, "formatVersion");
    },
    compression: () => {
      compression = parsed(shape.compression, small("compression"), "compression");
    },
    archives: () => {
      const found: OtherArchive[] = [];
      reader.list("archives", MAX_ARCHIVES, (position) => {
        const part = `archives[${position}]`;
        found.push(parsed(archiveSchema, small(part), part));
      });
      archives = found;
    },
    paths: () => {
      reader.list("paths", MAX_PATHS, (position) => {
        paths.add(reader.value(`paths[${position}]`, MAX_PATH_BYTES));
      });
    },
  };
  reader.object("", fields, { others: isOpen ? "skipped" : "refused" });
  reader.end();
  const index = {
    formatVersion: parsed(shape.formatVersion, formatVersion, "formatVersion"),
    compression: parsed(shape.compression, compression, "compression"),
    ...(archives && { archives }),
    paths: paths.paths,
  };
  if (index.paths.length === 0) throw invalid("paths: expected at least one path");
  return { index, untrusted: paths.untrusted };
}

/** The paths of an index, as they are read. */
class PathList {
  readonly paths: IndexedPath[] = [];
  untrusted: PullError | null = null;
  readonly #hashes = new Set<string>();
  readonly #trustedKeys: readonly PublicKey[] | null;
  readonly #rules: IndexRules;
  #untrustedCount = 0;

  constructor(trustedKeys: readonly PublicKey[] | null, rules: IndexRules) {
    this.#trustedKeys = trustedKeys;
    this.#rules = rules;
  }

  add(value: unknown): void {
    const part = `paths[${this.paths.length}]`;
    expectShortLists(value, part);
    const isOpen = this.#rules.unknownKeys === "ignored";
    const path = parsed(isOpen ? openPathSchema : indexedPathSchema, value, part);
    this.#expectInPlace(path);
    this.paths.push(path);
    const untrusted = this.#trustedKeys && this.#signatureProblem(path, this.#trustedKeys);
    if (!untrusted) return;
    this.untrusted ??= untrusted;
    if (++this.#untrustedCount > MAX_UNTRUSTED) throw this.untrusted;
  }

  #expectInPlace({ path, references }: IndexedPath): void {
    const position = this.paths.length;
    const hash = path.slice(0, 32);
    if (this.#hashes.has(hash)) throw invalid(`${path} stands in it twice`);
    this.#hashes.add(hash);
    let previous = -1;
    for (const reference of references) {
      if (reference <= previous || reference > position) {
        throw invalid(
          `${path} (position ${position}): expected ascending references to itself or paths ` +
            `before it, found ${references.slice(0, 10).join(", ")}`,
        );
      }
      previous = reference;
    }
  }

  #signatureProblem(entry: IndexedPath, keys: readonly PublicKey[]): PullError | null {
    const { path, narHash, narSize, signatures, ca } = entry;
    if (ca !== undefined && this.#rules.contentAddressed === "unsigned") return null;
    const references = entry.references.map((at) => this.paths[at]?.path ?? "").sort();
    const info = { storePath: path, narHash, narSize, references, signatures };
    const { verified } = this.#rules;
    if (verified ? verified.check(info, keys) : hasTrustedSignature(info, keys)) return null;
    return new PullError(
      "PATH_SIGNATURE",
      `${STORE_DIRECTORY}/${path}: expected a signature by one of ` +
        `${keys.map(({ name }) => name).join(", ")}, found ` +
        (signatures.map((text) => text.split(":")[0]).join(", ") || "none"),
    );
  }
}

/** A schema makes an issue for each bad element: of a long list that is much memory. */
function expectShortLists(value: unknown, part: string): void {
  if (typeof value !== "object" || value === null) return;
  const { references, ...others } = value as Record<string, unknown>;
  if (Array.isArray(references)) {
    const wrong = references.findIndex((at) => !Number.isSafeInteger(at) || Number(at) < 0);
    if (wrong >= 0) throw invalid(`${part}.references[${wrong}]: expected a position`);
  }
  const longest = { signatures: MAX_PATH_SIGNATURES, was: MAX_BASES, deltas: MAX_BASES };
  for (const [name, max] of Object.entries(longest)) {
    const list = others[name];
    if (Array.isArray(list) && list.length > max) {
      throw invalid(`${part}.${name}: expected at most ${max} elements, found ${list.length}`);
    }
  }
}

function expectKnownVersion(version: unknown): void {
  if (typeof version !== "number" || version <= INDEX_FORMAT_VERSION) return;
  throw new PullError(
    "FORMAT_UNSUPPORTED",
    `expected archive format ${INDEX_FORMAT_VERSION}, found ${version}; ` +
      "this host needs a newer nixos-pull",
  );
}

function parsed<T>(schema: z.ZodType<T>, value: unknown, part: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw invalid(describeIssues(result.error, value, part));
}

function invalid(message: string): PullError {
  return new PullError("INDEX_INVALID", `archive index: ${message}`);
}
