import { expect, test } from "vitest";
import { placeInOrder } from "../../../../agent/core/release/host-order.ts";

test("a host has the same place in every version of this program", () => {
  // sha256 of "nixos-pull rollout 1\nsalt\nweb1": its first 48 bits. Hosts of one fleet may run
  // different versions, so that this must never change.
  expect(placeInOrder("salt", "web1")).toBe(0.39783648184630493);
  expect(placeInOrder("salt", "web2")).toBe(0.34680309277180044);
});

test("places lie between 0 and 1, evenly, and each salt gives another order", () => {
  const places = (salt: string): number[] =>
    Array.from({ length: 1_000 }, (_, at) => placeInOrder(salt, `host${at}`));
  const [a, b] = [places("a"), places("b")];
  for (const place of a) {
    expect(place).toBeGreaterThanOrEqual(0);
    expect(place).toBeLessThan(1);
  }
  for (let tenth = 0; tenth < 10; tenth++) {
    const inside = a.filter((place) => Math.floor(place * 10) === tenth).length;
    expect(inside).toBeGreaterThan(60);
    expect(inside).toBeLessThan(140);
  }
  expect(a).not.toEqual(b);
  // Neither the salt nor the name runs over into the other.
  expect(placeInOrder("a\nb", "c")).not.toBe(placeInOrder("a", "c"));
});
