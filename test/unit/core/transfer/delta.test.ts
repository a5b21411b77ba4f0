import { describe, expect, test } from "vitest";
import type {
  ArchiveContents,
  ArchiveIndex,
  IndexedPath,
} from "../../../../agent/core/formats/archive-index.ts";
import type { NarInfo } from "../../../../agent/core/formats/narinfo.ts";
import {
  MAX_DELTA_BYTES,
  counterpartOf,
  deltaOffers,
  deltasOf,
  encodeCounterpart,
  findCounterparts,
  nameKey,
  replacementsFor,
} from "../../../../agent/core/transfer/delta.ts";

const path = (digit: string, name: string): string => `${digit.repeat(32)}-${name}`;

test.each([
  ["openssl-3.0.11", "openssl"],
  ["openssl-3.0.13-dev", "openssl-dev"],
  ["glibc-2.38-44-bin", "glibc-bin"],
  ["nixos-system-web1-24.05", "nixos-system-web1"],
  ["unit-nginx.service", "unit-nginx.service"],
  ["perl5.38.2-JSON-4.10", "perl5.38.2-JSON"],
  ["etc", "etc"],
  ["man-db-2.12-man", "man-db-man"],
])("%s is %s in another version", (name, key) => {
  expect(nameKey(path("0", name))).toBe(key);
});

describe("the counterpart of a path", () => {
  const of = (name: string, old: string[], kept: string[] = []): string | undefined => {
    const fresh = { path: path("z", name), narSize: 100 };
    const paths = kept.map((one) => ({ path: path("k", one), narSize: 100 }));
    const before = old.map((one, at) => ({ path: path(String(at), one), narSize: 100 + at }));
    return findCounterparts([...paths, fresh], [...before, ...paths])
      .get(fresh.path)
      ?.slice(33);
  };

  test("is the one of the same name, or else of another version and the same output", () => {
    expect(of("a-1.0", ["a-1.1", "a-1.0"])).toBe("a-1.0");
    expect(of("a-1.2", ["a-1.1-dev", "a-1.1"])).toBe("a-1.1");
    expect(of("a-1.2-dev", ["a-1.1-dev", "a-1.1"])).toBe("a-1.1-dev");
    expect(of("a-1.2", ["b-1.2"])).toBeUndefined();
  });

  test("is of the most similar size, where there are several", () => {
    expect(of("a-3", ["a-1", "a-2"])).toBe("a-1");
  });

  test("is never one that is still there", () => {
    expect(of("a-2", [], ["a-1"])).toBeUndefined();
  });
});

test("a counterpart of the same name is told by its hash alone", () => {
  const [fresh, same, other] = [path("z", "a-1"), path("0", "a-1"), path("1", "a-2")];
  const entry = {
    path: fresh,
    was: [encodeCounterpart(fresh, same), "", encodeCounterpart(fresh, other)],
  } as unknown as IndexedPath;
  expect(entry.was).toEqual(["0".repeat(32), "", other]);
  expect([0, 1, 2, 3].map((base) => counterpartOf(entry, base))).toEqual([same, null, other, null]);
});

test("hashes of the path and of its references are mapped to what they have become", () => {
  const paths = [
    { path: path("a", "x"), references: [], was: ["0".repeat(32)] },
    { path: path("b", "y"), references: [] },
    { path: path("c", "z"), references: [0, 1, 2], was: [path("1", "old"), path("2", "older")] },
  ] as unknown as IndexedPath[];
  const last = paths[2];
  if (!last) throw new Error("no path");
  const of = (base: number) => Object.fromEntries(replacementsFor({ paths }, last, base));
  const digits = (digit: string): string => digit.repeat(32);
  expect(of(0)).toEqual({ [digits("1")]: digits("c"), [digits("0")]: digits("a") });
  expect(of(1)).toEqual({ [digits("2")]: digits("c") });
});

describe("deltas for a path", () => {
  const digits = (digit: string): string => digit.repeat(32);
  const archive = (digit: string) => ({ sha256: digit.repeat(64), size: 10_000 });
  const delta = (base: number, archive: number, offset: number, size: number) => ({
    ...{ base, archive, offset, size, sha256: String(size).padStart(64, "0") },
  });
  const indexed = (changes: Partial<IndexedPath>): IndexedPath => ({
    ...{ path: path("z", "a-2"), narHash: "", narSize: 5_000, references: [0], signatures: [] },
    ...{ nar: { offset: 0, size: 1_000, sha256: "e".repeat(64) }, was: [digits("0"), "", "gone"] },
    ...changes,
  });

  /** An archive's contents with these paths, all of them with NARs of their own. */
  function contentsOf(...paths: IndexedPath[]): ArchiveContents {
    const narInfos = paths.map(({ nar }) => ({ fileSha256: nar.sha256 }) as NarInfo);
    const index = { formatVersion: 1, compression: "none", paths } as ArchiveIndex;
    return {
      index: { ...index, archives: [archive("a"), archive("b")] },
      ...{ narInfos, sha256: "", members: [], size: 0, elsewhere: [] },
    };
  }

  const sizesOf = (contents: ArchiveContents, limit = Infinity): number[][] =>
    deltaOffers(contents, limit).map(({ deltas }) => deltas.map(({ size }) => size));

  test("come cheapest first, with their archive, base and what to replace in it", () => {
    const entry = indexed({ deltas: [delta(0, 1, 70, 30), delta(0, 0, 50, 20)] });
    const common = {
      base: `/nix/store/${path("0", "a-2")}`,
      replacements: new Map([[digits("0"), digits("z")]]),
    };
    expect(deltasOf(contentsOf(entry), entry)).toEqual([
      { ...common, archive: archive("a"), offset: 50, size: 20, sha256: "20".padStart(64, "0") },
      { ...common, archive: archive("b"), offset: 70, size: 30, sha256: "30".padStart(64, "0") },
    ]);
  });

  test("need a counterpart and an archive that the index names", () => {
    const entry = indexed({ deltas: [delta(1, 0, 0, 1), delta(9, 0, 0, 2), delta(0, 2, 0, 3)] });
    expect(deltasOf(contentsOf(entry), entry)).toEqual([]);
    const { deltas: _, ...plain } = entry;
    expect(deltasOf(contentsOf(plain), plain)).toEqual([]);
    const unnamed = contentsOf(indexed({ deltas: [delta(0, 0, 0, 1)] }));
    const { archives: __, ...index } = unnamed.index;
    expect(deltasOf({ ...unnamed, index }, unnamed.index.paths[0]!)).toEqual([]);
  });

  test("are offered only if they are smaller than the NAR and not larger than is ever used", () => {
    const small = [delta(0, 0, 0, 1_000), delta(0, 0, 0, 999)];
    expect(sizesOf(contentsOf(indexed({ deltas: small })))).toEqual([[999]]);
    const nar = { offset: 0, size: 2 * MAX_DELTA_BYTES, sha256: "e".repeat(64) };
    const large = [delta(0, 0, 0, MAX_DELTA_BYTES + 1), delta(0, 0, 0, MAX_DELTA_BYTES)];
    expect(sizesOf(contentsOf(indexed({ nar, deltas: large })))).toEqual([[MAX_DELTA_BYTES]]);
    const only = contentsOf(indexed({ deltas: [delta(0, 0, 0, 1_000)] }));
    expect(deltaOffers(only, Infinity)).toEqual([]);
  });

  test("are offered for NARs up to the limit that are not of two paths", () => {
    const entry = indexed({ deltas: [delta(0, 0, 0, 9)] });
    expect(sizesOf(contentsOf(entry), 5_000)).toEqual([[9]]);
    expect(sizesOf(contentsOf(entry), 4_999)).toEqual([]);
    const twin = indexed({ path: path("y", "b"), was: [] });
    expect(sizesOf(contentsOf(entry, twin))).toEqual([]);
    const stranger = { ...twin, nar: { ...twin.nar, sha256: "f".repeat(64) } };
    expect(deltaOffers(contentsOf(stranger, entry), Infinity)).toMatchObject([{ at: 1, entry }]);
  });
});

test.each([
  ["a-bin", "a-bin"],
  ["a-1-binary", "a"],
  ["a-1b-2-lib", "a-lib"],
  ["a1-b", "a1-b"],
  ["1", "1"],
])("the name %s has the key %s", (name, key) => {
  expect(nameKey(path("0", name))).toBe(key);
});

test("a counterpart is looked for only for what is new, and by its size", () => {
  const one = (digit: string, name: string, narSize: number) => ({
    ...{ path: path(digit, name), narSize },
  });
  const old = [one("0", "a-1", 500), one("1", "a-2", 90), one("2", "a-3", 70), one("3", "b-1", 1)];
  const found = findCounterparts([one("z", "a-9", 100), one("3", "b-1", 1), one("y", "c", 1)], old);
  expect([...found]).toEqual([[path("z", "a-9"), path("1", "a-2")]]);
  // One that is still there is the past of another only if nothing else is.
  const kept = findCounterparts([one("3", "b-1", 1), one("z", "b-2", 1)], old);
  expect([...kept]).toEqual([]);
});
