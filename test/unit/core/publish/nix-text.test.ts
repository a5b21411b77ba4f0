import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  nixLines,
  nixName,
  nixString,
  nixText,
  type Json,
} from "../../../../agent/core/publish/nix-text.ts";

describe("Nix text", () => {
  test.each<[Json, string]>([
    [{ a: [1, true, null, "x"], "b.c": {} }, '{ a = [ 1 true null "x" ]; "b.c" = { }; }'],
    [[], "[ ]"],
    [[[false], -1.5], "[ [ false ] -1.5 ]"],
    ['${x} $y "q" \\ \n', '"\\${x} $y \\"q\\" \\\\ \\n"'],
    ["a\r\n\tb\r\t", '"a\\r\\n\\tb\\r\\t"'],
    ["$${x}", '"$\\${x}"'],
    ["", '""'],
  ])("of %j", (value, text) => {
    expect(nixText(value)).toBe(text);
  });

  test("is broken into parts if it does not fit", () => {
    const value = { short: [1, 2], long: { text: "x".repeat(20), none: null }, "a.b": [["y"], {}] };
    const before = "  it: ";
    expect(nixLines(value, { columns: Infinity, before, after: ";" })).toEqual([
      `${before}${nixText(value)};`,
    ]);
    expect(nixLines(value, { columns: 30, before, after: " (mkForce)" })).toEqual([
      "  it: {",
      "    short = [ 1 2 ];",
      "    long = {",
      `      text = "${"x".repeat(20)}";`,
      "      none = null;",
      "    };",
      '    "a.b" = [ [ "y" ] { } ];',
      "  } (mkForce)",
    ]);
    expect(nixLines([1, 2], { columns: 5 })).toEqual(["[", "  1", "  2", "]"]);
  });

  test("has no quote and no interpolation that ends a string early", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const inner = nixString(text).slice(1, -1).replace(/\\./gs, "");
        expect(inner).not.toMatch(/"|\$\{/);
      }),
    );
  });

  test.each([
    ...["a", "a-b", "_", "_a9", "B'", "x_-'"].map((name) => [name, name]),
    ...["a.b", "1", "", "-a", "'a", "a b", "ä", "a\n"].map((name) => [name, JSON.stringify(name)]),
  ])("the name %j is written %s", (name, text) => {
    expect(nixName(name)).toBe(text);
  });
});
