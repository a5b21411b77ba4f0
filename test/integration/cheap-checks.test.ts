import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { nixosPull } from "../support/nixos-pull.ts";
import { createOperator, type Operator } from "../support/sandbox.ts";

/** What Nix says if the host is evaluated. */
const EVALUATED = "this host was evaluated";

const file = (operator: Operator, name: string): string => join(operator.directory, name);

/** A wrong command line, what is said about it, and the code. */
type Wrong = readonly [
  what: string,
  args: (operator: Operator) => readonly string[],
  why: RegExp,
  exitCode: number,
];

const WRONG: readonly Wrong[] = [
  [
    "a barrier that is not there",
    () => ["--barrier", "7"],
    /--barrier: .* found 7; no release is/,
    10,
  ],
  ["a canary that is no host", () => ["--canary", "x", "--over", "1h"], /names no host x/, 10],
  ["a wave of a host that is none", () => ["--waves", "x=1h"], /names no host x/, 10],
  ["waves that are none", () => ["--waves", "x"], /--waves: expected WHO=AFTER/, 2],
  ["a group of a host that is none", () => ["--group", "x=a"], /--group: .* found x/, 2],
  ["a group that is none", () => ["--group", "web1=-"], /--group: expected a group/, 2],
  ["a specialisation of no host", () => ["--specialisation", "x=a"], /--specialisation: .* x/, 2],
  [
    "a specialisation without a name",
    () => ["--specialisation", "web1="],
    /--specialisation: expected HOST=/,
    2,
  ],
  [
    "a host without an agent that is none",
    () => ["--allow-without-agent", "x"],
    /--allow-without-agent: .* found x/,
    2,
  ],
  ["a host that comes twice", () => ["--host", "web1=./x.nix"], /host once, found web1 twice/, 2],
  ["a source that is none", () => ["--host", "web2=x"], /--host: web2: expected .* found "x"/, 2],
  ["a channel that is none", () => ["--channel", "../x"], /--channel.* a channel, such as/, 2],
  ["a number that is taken", () => ["--sequence", "0"], /--sequence.* a positive number/, 2],
  ["a public key that is none", () => ["--public-key", "x"], /KEY_INVALID: /, 3],
  ["a level that is none", () => ["--level", "20"], /--level: expected 1 to 19/, 2],
  ["a hosts file that is not there", () => ["--hosts", "nosuch.nix"], /found none/, 3],
  [
    "a signer that is not there",
    (operator) => ["--signer", "/nosuch/signer", "--signer-key", operator.publicKey],
    /TOOL_MISSING: expected a program at \/nosuch\/signer/,
    7,
  ],
  [
    "a draft in no directory",
    (operator) => ["--draft", file(operator, "nosuch/draft.json")],
    /draft\.json: expected a file in a directory, found no/,
    2,
  ],
  [
    "a draft in the place of a directory",
    (operator) => ["--unsigned", operator.directory],
    /expected a file, found a directory/,
    2,
  ],
  [
    "a memory in no directory",
    (operator) => ["--memory", file(operator, "nosuch/memory")],
    /nosuch\/memory: expected to write here/,
    7,
  ],
  [
    "a cache in no directory",
    (operator) => ["--cache", join(operator.keyFile, "cache")],
    /IO_FAILED|UNSAFE_FILE|ENOTDIR/,
    7,
  ],
];

describe("a publish that cannot work", () => {
  async function operatorWithHosts(): Promise<Operator> {
    const operator = await createOperator();
    await writeFile(file(operator, "hosts.nix"), `{ web1 = throw "${EVALUATED}"; }`);
    return operator;
  }

  test.each(WRONG)("%s: said before a host is evaluated", async (_, args, why, exitCode) => {
    const operator = await operatorWithHosts();
    const output = await nixosPull([
      ...["publish", "--mirror", operator.mirror, "--key", operator.keyFile],
      ...["--hosts", file(operator, "hosts.nix"), ...args(operator)],
    ]);
    expect(output.stderr).toMatch(why);
    expect(output.stderr).not.toContain(EVALUATED);
    expect(output.exitCode).toBe(exitCode);
  });

  test("without anything wrong, the host is evaluated", async () => {
    const operator = await operatorWithHosts();
    const output = await nixosPull([
      ...["publish", "--mirror", operator.mirror, "--key", operator.keyFile],
      ...["--hosts", file(operator, "hosts.nix"), "--canary", "web1", "--over", "1h"],
    ]);
    expect(output.stderr).toContain(EVALUATED);
  });

  test("a host of the command line is not built for a release that is not there", async () => {
    const operator = await operatorWithHosts();
    const output = await nixosPull([
      ...["publish", "--mirror", operator.mirror, "--key", operator.keyFile],
      ...["--host", "web1=./nosuch.nix", "--barrier", "7"],
    ]);
    expect(output.stderr).toMatch(/--barrier/);
    expect(output.stderr).not.toMatch(/building|nosuch/);
  });
});
