import { describe, expect, test } from "vitest";
import { commandBlocks, fencedBlocks } from "../support/command-blocks.ts";
import { looseDifference } from "../support/loose-output.ts";

describe("what a document shows and what a command printed", () => {
  test.each([
    [
      "Release 1 of stable, good until Mon 22 Feb 2027 07:36.",
      "Release 12 of stable, good until Tue 1 Dec 2026 03:42.",
    ],
    ["created 2026-11-24T07:36:54.108Z", "created 2026-12-01T03:43:56Z"],
    ["up to date since 3 hours ago", "up to date since 12 s ago"],
    ["last poll a moment ago", "last poll 12 s ago"],
    ["web1  jjpa5a3-web1-1  7.0 KiB in 5 paths", "web1 kvwwih7-web1-1 812 B in 6 paths"],
    [
      "/nix/store/jjpa5a3k03ny2zqrirhzq8wcf9br7m0b-etc",
      "/nix/store/kvwwih757qrc94gcjrkqxar5iggm8dh2-etc",
    ],
    ["first\n…\nlast", "first\nbetween\nalso between\nlast"],
    ["first\n…", "first\nanything"],
    ["…/hosts/db1.nix: [ 5432 ]", "/tmp/x/hosts/db1.nix: [ 5432 ]"],
  ])("%j is like %j", (shown, printed) => {
    expect(looseDifference(shown.split("\n"), printed)).toBeNull();
  });

  test.each([
    ["Published release 1 of stable.", "Drafted release 1 of stable.", "shown: Published"],
    ["first\nlast", "first\nbetween\nlast", "printed in its place: between"],
    ["first", "first\nlast", "not shown: last"],
    ["first\nlast", "first", "printed in its place: nothing"],
    ["first\n…\nlast", "first\nbetween", "printed in its place: nothing"],
  ])("%j is not like %j", (shown, printed, why) => {
    expect(looseDifference(shown.split("\n"), printed)).toContain(why);
  });
});

describe("blocks of a document", () => {
  const text = [
    "```console",
    "$ first --long \\",
    "    --option",
    "printed",
    "$ second",
    "```",
    "",
    "1. A list:",
    "",
    "   ```sh",
    "   cd there",
    "   third",
    "   ```",
    "",
    "```nix",
    "{ }",
    "```",
    "",
  ].join("\n");

  test("are commands with what is shown below them, also in lists", () => {
    expect(commandBlocks("x.md", text)).toEqual([
      {
        document: "x.md",
        line: 1,
        first: "first --long \\",
        commands: [
          { command: "first --long \\\n    --option", shown: ["printed"] },
          { command: "second", shown: [] },
        ],
      },
      {
        document: "x.md",
        line: 10,
        first: "cd there",
        commands: [{ command: "cd there\nthird\n", shown: [] }],
      },
    ]);
    expect(fencedBlocks(text).map(({ language }) => language)).toEqual(["console", "sh", "nix"]);
  });

  test("are refused without a command", () => {
    expect(() => commandBlocks("x.md", "```console\nonly output\n```\n")).toThrow("x.md:1");
  });
});
