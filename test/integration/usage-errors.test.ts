import { describe, expect, test } from "vitest";
import { nixosPull } from "../support/nixos-pull.ts";

/** Command lines that are wrong, what is said about each, and whose help is named. */
const WRONG: readonly (readonly [string, readonly string[], RegExp, string])[] = [
  ["an unknown command", ["nosuch"], /unknown command 'nosuch'/, "nixos-pull"],
  [
    "a mistyped command",
    ["chekc"],
    /unknown command 'chekc' \(Did you mean check\?\)/,
    "nixos-pull",
  ],
  ["an unknown option", ["check", "--nosuch"], /unknown option '--nosuch'/, "nixos-pull check"],
  ["a missing argument", ["sign"], /missing required argument 'release'/, "nixos-pull sign"],
  ["an argument too many", ["check", "web1"], /too many arguments/, "nixos-pull check"],
  ["a missing value", ["check", "--config"], /argument missing/, "nixos-pull check"],
  ["a wrong value", ["history", "--lines", "0"], /a positive number/, "nixos-pull history"],
  [
    "a channel that is none",
    ["sign", "/nowhere", "--channel", "../x"],
    /a channel/,
    "nixos-pull sign",
  ],
  [
    "no such choice",
    ["completion", "tcsh"],
    /shell: expected bash, zsh or fish, found "tcsh"/,
    "nixos-pull completion",
  ],
  ["a missing option", ["publish"], /'-m, --mirror <directory>'/, "nixos-pull publish"],
  ["an unknown part", ["release", "nosuch"], /unknown command 'nosuch'/, "nixos-pull release"],
  [
    "a part's unknown option",
    ["release", "pause", "--mirror", "/nowhere", "--nosuch", "why"],
    /unknown option '--nosuch'/,
    "nixos-pull release pause",
  ],
  [
    "a part's missing argument",
    ["release", "pause", "--mirror", "/nowhere"],
    /missing required argument 'reason'/,
    "nixos-pull release pause",
  ],
  ["a part's missing option", ["release", "show"], /--mirror/, "nixos-pull release show"],
];

describe("a wrong command line", () => {
  test.each(WRONG)(
    "%s: exit code 2, one line that names the help",
    async (_, args, why, command) => {
      const { exitCode, stdout, stderr } = await nixosPull(args);
      expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: "" });
      expect(stderr).toMatch(/^nixos-pull: USAGE: [^\n]*\n$/);
      expect(stderr).toMatch(why);
      expect(stderr).toContain(`; \`${command} --help\` shows what is possible\n`);
    },
  );

  // `completion` prints a script, never JSON.
  test.each(WRONG.filter(([, [command]]) => command !== "completion"))(
    "%s: the JSON error document with --json",
    async (_, args, why) => {
      const names = args[0] === "release" ? 2 : 1;
      const withJson = [...args.slice(0, names), "--json", ...args.slice(names)];
      const { exitCode, stdout, stderr } = await nixosPull(withJson);
      expect(exitCode).toBe(2);
      const { error } = JSON.parse(stdout);
      expect(error).toEqual({ code: "USAGE", message: expect.stringMatching(why) });
      expect(stderr).toBe(`nixos-pull: USAGE: ${error.message}\n`);
    },
  );

  test.each([[[]], [["release"]]])("%j alone: its help, and exit code 2", async (args) => {
    const { exitCode, stdout, stderr } = await nixosPull(args);
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: "" });
    expect(stderr).toMatch(/^Usage: nixos-pull /);
  });

  test.each([[["--help"]], [["release", "--help"]], [["release", "pause", "--help"]]])(
    "%j: help on standard output, and exit code 0",
    async (args) => {
      const { exitCode, stdout, stderr } = await nixosPull(args);
      expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
      expect(stdout).toMatch(/^Usage: nixos-pull /);
    },
  );
});

test.each([
  ["verify", ["verify", "/nowhere"]],
  ["mirror", ["mirror", "/nowhere", "/tmp/nowhere-else"]],
])("%s without keys, where no host's configuration is, names --public-key", async (_, args) => {
  const { exitCode, stderr } = await nixosPull(args);
  expect(exitCode).toBe(3);
  expect(stderr).toMatch(/^nixos-pull: CONFIG_NOT_FOUND: expected --public-key NAME:BASE64, or /);
});
