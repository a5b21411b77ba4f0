import { describe, expect, test } from "vitest";
import type { IndexedPath } from "../../../../agent/core/formats/archive-index.ts";
import {
  counterpartOf,
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
