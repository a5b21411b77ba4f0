import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { SYSTEM_FILE } from "../support/closure.ts";
import { nixosPull } from "../support/nixos-pull.ts";
import { createOperator, type Operator } from "../support/sandbox.ts";

interface Published {
  readonly failed: { hostname: string; code: string; message: string }[];
  readonly hosts: { hostname: string; toplevel: string }[];
}

/** The Nix text of a system that builds. */
const good = (name: string, generation: string): string =>
  `(import ${SYSTEM_FILE} { name = "${name}"; generation = "${generation}"; }).system`;
/** One that builds only what it needs, which fails. */
const BROKEN_PART = `derivation { name = "part"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo oops; exit 3" ]; }`;
const broken = (name: string): string =>
  `derivation { name = "nixos-system-${name}"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "read x < \${${BROKEN_PART}}" ]; }`;
const WRONG_OPTION = 'throw "The option `services.nope\' does not exist."';

async function publish(
  operator: Operator,
  hosts: Readonly<Record<string, string>>,
  ...args: string[]
) {
  const file = join(operator.directory, "hosts.nix");
  const lines = Object.entries(hosts).map(([name, text]) => `${name} = ${text};`);
  await writeFile(file, `{ ${lines.join("\n")} }`);
  return nixosPull([
    ...["publish", "--mirror", operator.mirror, "--key", operator.keyFile],
    ...["--hosts", file, ...args],
  ]);
}

describe("a host that fails", () => {
  test("is named with the error that Nix gives, whether it fails to evaluate or to build", async () => {
    const operator = await createOperator();
    const evaluated = await publish(operator, { web1: good("web1", "1"), db1: WRONG_OPTION });
    expect(evaluated.exitCode).toBe(10);
    expect(evaluated.stderr).toMatch(/BUILD_FAILED: 1 of 2 hosts failed:\ndb1: .*does not exist/);
    const built = await publish(operator, {
      ...{ web1: good("web1", "1"), db1: broken("db1"), db2: broken("db2") },
    });
    expect(built.exitCode).toBe(10);
    for (const name of ["db1", "db2"]) {
      expect(built.stderr).toMatch(new RegExp(`^${name}: error: .*-part\\.drv.* exit code 3`, "m"));
    }
    expect(built.stderr).toMatch(/> oops \| all of its log: nix log \/nix\/store\/.*\.drv$/m);
    expect(built.stderr).not.toMatch(/^web1:/m);
    expect(built.stderr).toContain("`--keep-going` publishes the others");
  });

  test("with --keep-going leaves the others to be published, and keeps its last system", async () => {
    const operator = await createOperator();
    const first = { web1: good("web1", "1"), db1: good("db1", "1"), db2: good("db2", "1") };
    expect((await publish(operator, first)).exitCode).toBe(0);
    const next = { web1: good("web1", "2"), db1: broken("db1"), db2: WRONG_OPTION, new1: "{ }.x" };
    const output = await publish(operator, next, "--keep-going", "--json");
    expect(output.exitCode, output.stderr).toBe(12);
    const published = JSON.parse(output.stdout) as Published;
    expect(published.hosts.map(({ hostname }) => hostname)).toEqual(["web1"]);
    expect(published.failed.map(({ hostname, code }) => `${hostname} ${code}`).sort()).toEqual([
      "db1 BUILD_FAILED",
      "db2 BUILD_FAILED",
      "new1 BUILD_FAILED",
    ]);
    expect(output.stderr).toMatch(/db1 keeps its system of release 1, \S+-nixos-system-db1-1: /);
    expect(output.stderr).toMatch(/new1 is not in the release: BUILD_FAILED/);
    const shown = await nixosPull([
      ...["release", "show", "--json", "--mirror", operator.mirror],
      ...["--public-key", operator.publicKey],
    ]);
    const { sequence, hosts } = JSON.parse(shown.stdout) as Published & { sequence: number };
    expect(sequence).toBe(2);
    expect(hosts.map(({ hostname, toplevel }) => [hostname, toplevel.slice(-2)])).toEqual([
      ["db1", "-1"],
      ["db2", "-1"],
      ["web1", "-2"],
    ]);

    const alone = await publish(operator, { db1: broken("db1") }, "--keep-going");
    expect(alone.exitCode).toBe(10);
    expect(alone.stderr).toMatch(/BUILD_FAILED: db1: error: /);
    expect(alone.stderr).not.toContain("publishes the others");
  });

  test("of many is found among those that are evaluated beside it", async () => {
    const operator = await createOperator();
    const names = Array.from({ length: 23 }, (_, at) => `h${at}`);
    const hosts = Object.fromEntries(names.map((name) => [name, good(name, "1")]));
    const output = await publish(operator, { ...hosts, h7: WRONG_OPTION, h19: WRONG_OPTION });
    expect(output.stderr).toContain("2 of 23 hosts failed:");
    expect(output.stderr).toMatch(/^h19: .*\nh7: /m);
  });
});
