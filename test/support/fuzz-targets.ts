import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import {
  CACHE_INFO,
  INDEX_FORMAT_VERSION,
  archiveSize,
  encodeIndex,
  isNarMember,
  layOut,
  narInfosOf,
  readIndex,
  type ArchiveContents,
  type ArchiveIndex,
} from "../../agent/core/formats/archive-index.ts";
import { openEnvelope, parseEnvelope, sealEnvelope } from "../../agent/core/formats/envelope.ts";
import { PullError } from "../../agent/core/errors.ts";
import { planRuns } from "../../agent/core/transfer/fetch-plan.ts";
import { encodeManifest, parseManifest, releaseFor } from "../../agent/core/formats/manifest.ts";
import {
  parseNarInfo,
  pathFingerprint,
  renderNarInfo,
  signPath,
} from "../../agent/core/formats/narinfo.ts";
import { generateKey, parseSecretKey } from "../../agent/core/formats/signing-key.ts";
import {
  TAR_BLOCK,
  TAR_TRAILER,
  paddedSize,
  tarHeader,
} from "../../agent/core/formats/tar-layout.ts";
import { readOffer, wayOutOf } from "../../agent/core/release/offered-release.ts";
import { readRun } from "../../agent/core/transfer/run-reader.ts";

/**
 * One parser of bytes that a stranger wrote. `run` may throw a PullError and nothing
 * else; what it must never do besides, it asserts itself.
 */
export interface FuzzTarget {
  readonly name: string;
  /** Good inputs to start from. */
  readonly seeds: readonly Buffer[];
  run(input: Buffer): void | Promise<void>;
}

const KEY = parseSecretKey(generateKey("fuzz-1").secret);
const TRUST = { publicKeys: [KEY.publicKey], threshold: 1 };
const SYSTEM = `${"0".repeat(32)}-nixos-system-fuzz`;
const LIBRARY = `${"1".repeat(32)}-library`;

/** A whole small archive: a library and a system that refers to it. */
function sampleArchive(): { index: Buffer; contents: ArchiveContents; bytes: Buffer } {
  const nars = new Map([
    [LIBRARY, Buffer.from("library".repeat(50))],
    [SYSTEM, Buffer.from("system".repeat(200))],
  ]);
  const index: ArchiveIndex = {
    formatVersion: INDEX_FORMAT_VERSION,
    compression: "none",
    paths: [...nars].map(([path, nar], position) => {
      const references = position === 0 ? [] : [0, 1];
      const info = {
        storePath: path,
        narHash: `sha256:${"0".repeat(52)}`,
        narSize: nar.length,
        references: references.map((at) => [LIBRARY, SYSTEM][at] ?? "").sort(),
      };
      return {
        path,
        narHash: info.narHash,
        narSize: nar.length,
        references,
        signatures: [signPath(KEY, pathFingerprint(info))],
        nar: { offset: 0, size: nar.length, sha256: sha256(nar) },
      };
    }),
  };
  for (const member of layOut(narInfosOf(index), 0).filter(isNarMember)) {
    const entry = index.paths.find(({ nar }) => nar.sha256 === member.body.sha256);
    if (entry) entry.nar.offset = member.headerOffset - paddedSize(0);
  }
  const compressed = encodeIndex(index);
  const members = layOut(narInfosOf(index), compressed.length);
  const parts = members.flatMap((member) => {
    const body = isNarMember(member)
      ? (nars.get(member.body.storePath) ?? CACHE_INFO)
      : member.body.kind === "bytes"
        ? member.body.bytes
        : CACHE_INFO;
    const padding = Buffer.alloc(paddedSize(body.length) - body.length);
    return [tarHeader(member.name, body.length), body, padding];
  });
  const size = archiveSize(members, compressed.length);
  const narInfos = narInfosOf(index);
  const contents = { index, narInfos, sha256: "", members, size, elsewhere: [] };
  return {
    index: compressed,
    contents,
    bytes: Buffer.concat([...parts, Buffer.alloc(TAR_TRAILER)]),
  };
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

const { index, contents, bytes } = sampleArchive();
const closureSize = contents.narInfos.reduce((sum, { narSize }) => sum + narSize, 0);
const ARCHIVE = { sha256: sha256(bytes), size: contents.size };

const PAYLOAD = encodeManifest({
  formatVersion: 1,
  channel: "stable",
  epoch: { number: 1, reason: "recovery" },
  sequence: 7,
  createdAt: "2026-01-01T00:00:00.000Z",
  expiresAt: "2027-01-01T00:00:00.000Z",
  history: { since: { sequence: 7 }, releases: [{ epoch: 1, sequence: 6, digest: sha256(index) }] },
  defaults: { activation: { mode: "switch" } },
  hosts: {
    web1: {
      toplevel: `/nix/store/${SYSTEM}`,
      closureSize,
      archive: { ...ARCHIVE, index: { sha256: sha256(index), size: index.length } },
      machineId: sha256(index),
    },
  },
});
const ENVELOPE = Buffer.from(sealEnvelope(PAYLOAD, [KEY]));

function readAnyIndex(compressed: Buffer): void {
  const found = { sha256: sha256(compressed), size: compressed.length };
  readIndex(
    compressed,
    { archive: { ...ARCHIVE, index: found }, toplevel: `/nix/store/${SYSTEM}`, closureSize },
    [KEY.publicKey],
  );
}

/** Of a later version. */
const AHEAD = Buffer.from(
  JSON.stringify({
    ...(JSON.parse(PAYLOAD.toString()) as object),
    ...{ requires: ["tree"], later: { key: [1] } },
    supported: [{ sequence: 1, digest: "a".repeat(64), until: "2030-01-01T00:00:00.000Z" }],
  }),
);

export const FUZZ_TARGETS: readonly FuzzTarget[] = [
  {
    name: "envelope",
    seeds: [ENVELOPE, Buffer.from("{}"), Buffer.from("<html>")],
    run(input) {
      parseEnvelope(input);
      const opened = openEnvelope(input, TRUST);
      // Whatever the bytes around it: only what was signed ever comes out.
      if (!opened.payload.equals(PAYLOAD)) throw new Error("a payload that nobody signed");
    },
  },
  {
    name: "manifest",
    seeds: [PAYLOAD],
    run(input) {
      const manifest = parseManifest(input);
      const signed = { manifest, digest: sha256(input), signedBy: [] };
      for (const name of ["web1", "__proto__", "toString"]) {
        try {
          releaseFor(signed, name, null);
        } catch (error) {
          if (!(error instanceof PullError)) throw error;
        }
      }
    },
  },
  {
    name: "manifest, on a host",
    seeds: [PAYLOAD, AHEAD],
    run(input) {
      const offered = readOffer(Buffer.from(sealEnvelope(input, [KEY])), TRUST, []);
      if (offered.kind === "understood") return;
      for (const name of ["web1", "__proto__", "toString"]) offered.ordersFor(name);
      wayOutOf(offered.signed.manifest, [], new Date(0));
    },
  },
  { name: "index, compressed", seeds: [index], run: readAnyIndex },
  {
    name: "index",
    seeds: [Buffer.from(JSON.stringify(contents.index))],
    run: (input) => {
      readAnyIndex(gzipSync(input, { level: 1 }));
    },
  },
  {
    name: "narinfo",
    seeds: contents.narInfos.map((info) => Buffer.from(renderNarInfo(info))),
    run(input) {
      const info = parseNarInfo(input.toString("utf8"), "fuzz.narinfo");
      if (/(^|\/)\.\.?(\/|$)|^\//.test(info.url)) throw new Error("a way out of the cache");
    },
  },
  {
    name: "archive",
    seeds: [bytes, bytes.subarray(0, bytes.length / 2)],
    async run(input) {
      const whole = planRuns(
        contents,
        new Map(contents.members.filter(isNarMember).map((it) => [it.name, 0])),
      );
      for (const run of whole) {
        // In pieces of odd sizes, as a network gives them.
        const pieces = async function* (): AsyncGenerator<Buffer> {
          for (let at = 0; at < input.length; at += 333) yield input.subarray(at, at + 333);
        };
        let size = 0;
        await readRun(run, contents, pieces(), async (_, have, nar) => {
          for await (const piece of nar) size += piece.length;
          size += have;
        });
        if (size !== closureSize) throw new Error("more or less than the index promises");
      }
    },
  },
  {
    name: "tar header",
    seeds: [tarHeader("nar/x.nar", 10)],
    async run(input) {
      const block = Buffer.alloc(TAR_BLOCK);
      input.copy(block);
      const rest = bytes.subarray(TAR_BLOCK);
      await FUZZ_TARGETS.find(({ name }) => name === "archive")?.run(Buffer.concat([block, rest]));
    },
  },
];

/** Runs a target; gives whether it accepted the input. Throws whatever is no PullError. */
export async function accepts(target: FuzzTarget, input: Buffer): Promise<boolean> {
  try {
    await target.run(input);
    return true;
  } catch (error) {
    if (error instanceof PullError && error.code !== "INTERNAL") return false;
    throw error;
  }
}

const INTERESTING = [
  "../",
  "/etc/passwd",
  "\0",
  "__proto__",
  "constructor",
  "-1",
  "9007199254740993",
  "1e999",
  "null",
  "[]",
  "{}",
  '"',
  "\\ud800",
  "é",
  "[[[[[[[[",
  '{"a":',
  "sha256:",
  "NaN",
  "ustar",
];

/** Changes an input a little, as a hostile mirror might. `random` is uniform in [0, 1). */
export function mutate(input: Buffer, seeds: readonly Buffer[], random: () => number): Buffer {
  const below = (bound: number): number => Math.floor(random() * bound);
  let bytes = Buffer.from(input);
  for (let step = below(4) + 1; step > 0; step--) {
    const at = below(bytes.length + 1);
    const length = Math.min(below(below(3) === 0 ? 512 : 8), bytes.length - at);
    const [before, middle, after] = [
      bytes.subarray(0, at),
      bytes.subarray(at, at + length),
      bytes.subarray(at + length),
    ];
    switch (below(7)) {
      case 0:
        if (at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ (1 << below(8));
        break;
      case 1:
        bytes = Buffer.concat([before, after]);
        break;
      case 2:
        bytes = Buffer.concat([before, middle, middle, after]);
        break;
      case 3:
        bytes = Buffer.concat([
          before,
          Buffer.from(INTERESTING[below(INTERESTING.length)] ?? ""),
          after,
        ]);
        break;
      case 4:
        bytes = Buffer.from(before);
        break;
      case 5: {
        const other = seeds[below(seeds.length)] ?? bytes;
        bytes = Buffer.concat([before, other.subarray(below(other.length + 1))]);
        break;
      }
      default:
        bytes = Buffer.concat([before, Buffer.from([below(256), below(256)]), after]);
    }
  }
  return bytes;
}

/** A small generator of numbers in [0, 1) that a seed repeats (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
