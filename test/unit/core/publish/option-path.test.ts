import fc from "fast-check";
import { describe, expect, test } from "vitest";
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
    const { code, message } = failureOf(() => parseOptionPath(text));
    expect(code).toBe("USAGE");
    expect(message).toBe(
      `expected an option such as networking.firewall.allowedTCPPorts, found ${JSON.stringify(text)}`,
    );
  });

  test("has names of up to 200 characters, and up to 1000 characters in all", () => {
    const name = "a".repeat(199);
    for (const text of [`${name}a`, `"${name}."`, [name, name, name, name, `${name}a`].join(".")]) {
      expect(parseOptionPath(text).join(".")).toBe(text.replaceAll('"', ""));
    }
    const long = [name, name, name, name, name, "a"].join(".");
    for (const text of [`${name}aa`, `"${name}.."`, long]) {
      expect(failureOf(() => parseOptionPath(text)).message).toContain(
        `found ${JSON.stringify(text)}`.slice(0, 900),
      );
    }
    const { message } = failureOf(() => parseOptionPath("b".repeat(1_002)));
    expect(message).toMatch(/found "b{1000}"$/);
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

describe("a suggestion", () => {
  test("differs in at most two letters, or in a third of what was written", () => {
    expect(suggestNames("abc", ["xyc"])).toEqual(["xyc"]);
    expect(suggestNames("abc", ["xyz"])).toEqual([]);
    expect(suggestNames("abcdefghi", ["xyzdefghi"])).toEqual(["xyzdefghi"]);
    expect(suggestNames("abcdefghi", ["xyzwefghi"])).toEqual([]);
    expect(suggestNames("abcdefghijk", ["xyzwefghijk"])).toEqual([]);
  });

  test.each([
    ["a letter more", "enablex"],
    ["a letter less", "enabl"],
    ["a letter in the middle more", "enxable"],
    ["a letter in the middle less", "enble"],
    ["another letter", "enabxe"],
    ["capitals", "ENABLE"],
    ["two letters changed round", "neable"],
  ])("is found for %s", (_, wanted) => {
    expect(suggestNames(wanted, ["enable", "services"])).toEqual(["enable"]);
    // It counts in both directions.
    expect(suggestNames("enable", [wanted, "services"])).toEqual([wanted]);
  });

  test("that is nearer comes first; names alike come by the alphabet; five are enough", () => {
    expect(suggestNames("port", ["parts", "part", "port2", "Port"])).toEqual([
      ...["Port", "port2", "part", "parts"],
    ]);
    expect(suggestNames("p", ["pg", "pa", "pf", "pb", "pe", "pc", "pd"])).toEqual([
      ...["pa", "pb", "pc", "pd", "pe"],
    ]);
  });
});
