import { expect, test } from "vitest";
import { shortSystemNames, withShortSystems } from "../../../../agent/core/text/system-names.ts";

const path = (hash: string, name: string): string => `/nix/store/${hash.padEnd(32, "0")}-${name}`;

test("a system is the beginning of its hash, and its name without what all have", () => {
  const name = shortSystemNames();
  expect(name(path("k3v8x2mzz", "nixos-system-web1-26.05"))).toBe("k3v8x2m-web1-26.05");
  expect(name(path("k3v8x2mzz", "other"))).toBe("k3v8x2m-other");
  expect(name(null)).toBe("nothing");
  expect(name("/elsewhere")).toBe("/elsewhere");
});

test("hashes that begin alike are shown as far as it takes to tell them apart", () => {
  const [one, other] = [path("k3v8x2mzza", "web1"), path("k3v8x2mzzb", "web1")];
  const name = shortSystemNames([one, other, one, null]);
  expect([name(one), name(other)]).toEqual(["k3v8x2mzza-web1", "k3v8x2mzzb-web1"]);
});

test("the systems in a message are shortened, and what follows them stays", () => {
  const message = `the boot default is ${path("k3v8x2m", "nixos-system-web1-26.05")}. Look.`;
  expect(withShortSystems(message, shortSystemNames())).toBe(
    "the boot default is k3v8x2m-web1-26.05. Look.",
  );
});

test("a file in a system keeps its path: somebody may want to run it", () => {
  const message = `run ${path("k3v8x2m", "web1")}/bin/check`;
  expect(withShortSystems(message, shortSystemNames())).toBe(message);
});
