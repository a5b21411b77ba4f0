import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { nixName, nixString, nixText } from "../../../../agent/core/publish/nix-text.ts";
import { parseOptionPath, suggestNames } from "../../../../agent/core/publish/option-path.ts";
import { failureOf } from "../../../support/failure.ts";

describe("an option's path", () => {
  test.each([
    ["networking.firewall.allowedTCPPorts", ["networking", "firewall", "allowedTCPPorts"]],
    ['a."b.c".d', ["a", "b.c", "d"]],
    ['services.nginx.virtualHosts."x y"', ["services", "nginx", "virtualHosts", "x y"]],
    ["one", ["one"]],
    ["a'.b-c._d.0", ["a'", "b-c", "_d", "0"]],
  ])("%s is read", (text, names) => {
    expect(parseOptionPath(text)).toEqual(names);
  });

  test.each([
    "",
    ".",
    "a.",
    ".a",
    "a..b",
    "a b",
    'a"b"',
    '"a',
    'a."${b}"',
    'a."\\"',
    'a."\n"',
    "a;",
  ])("%j is refused", (text) => {
    expect(failureOf(() => parseOptionPath(text)).code).toBe("USAGE");
  });

  test("whatever is taken is only names, dots and quotes", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        let names: string[];
        try {
          names = parseOptionPath(text);
        } catch {
          return;
        }
        expect(names.join("")).not.toMatch(/["\\$]/);
        expect(names).not.toContain("");
      }),
    );
  });

  test("is read quickly, however long it is", () => {
    expect(failureOf(() => parseOptionPath(`${"a.".repeat(100_000)}!`)).code).toBe("USAGE");
    expect(failureOf(() => parseOptionPath(`${"a".repeat(990)}!`)).code).toBe("USAGE");
  });
});

test("names that may have been meant are suggested, the likeliest first", () => {
  const names = ["allowedTCPPorts", "allowedUDPPorts", "allowPing", "enable"];
  expect(suggestNames("allowedTCPPort", names)[0]).toBe("allowedTCPPorts");
  expect(suggestNames("allowed", names)).toEqual(["allowedTCPPorts", "allowedUDPPorts"]);
  expect(suggestNames("enabel", names)).toEqual(["enable"]);
  expect(suggestNames("nothing", names)).toEqual([]);
});

describe("Nix text", () => {
  test.each([
    [{ a: [1, true, null, "x"], "b.c": {} }, '{ a = [ 1 true null "x" ]; "b.c" = { }; }'],
    [[], "[ ]"],
    ['${x} $y "q" \\ \n', '"\\${x} $y \\"q\\" \\\\ \\n"'],
  ])("of %j", (value, text) => {
    expect(nixText(value)).toBe(text);
  });

  test("has no quote and no interpolation that ends a string early", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const inner = nixString(text).slice(1, -1).replace(/\\./gs, "");
        expect(inner).not.toMatch(/"|\$\{/);
      }),
    );
  });

  test("names are quoted where they have to be", () => {
    expect(["a", "a-b", "a.b", "1", ""].map(nixName)).toEqual(["a", "a-b", '"a.b"', '"1"', '""']);
  });
});
