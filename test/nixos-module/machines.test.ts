import { execFile, spawnSync } from "node:child_process";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { parseSettings } from "../../agent/core/settings.ts";
import { noNix, PUBLIC_KEY } from "./nix.ts";

/**
 * The tests of nixos-module/tests need nixpkgs and KVM. Here they are evaluated as far as
 * stand-ins go, so that a change to the module or to the command line that breaks them is seen.
 */
interface Machines {
  readonly name: string;
  readonly script: string;
  readonly failures: readonly string[];
  readonly warnings: readonly string[];
  readonly settings: unknown;
  readonly credentials: readonly string[];
  readonly published: readonly string[];
}

const FILE = new URL("machines.nix", import.meta.url).pathname;

const machines = noNix ? {} : await evaluated();

async function evaluated(): Promise<Record<string, Machines>> {
  const { stdout } = await promisify(execFile)("nix-instantiate", [
    ...["--eval", "--strict", "--json", "--readonly-mode", "--store", "dummy://", FILE],
    ...["--argstr", "publicKey", PUBLIC_KEY],
    ...["--argstr", "nixpkgs", process.env["NIXOS_PULL_NIXPKGS"] ?? ""],
  ]);
  return JSON.parse(stdout) as Record<string, Machines>;
}

describe.skipIf(noNix)("nixos-module/tests", () => {
  it("has a machine for each of the module's promises", () => {
    expect(Object.keys(machines)).toEqual(["credentials", "follow", "rollback", "units"]);
  });

  it.each(Object.entries(machines))("%s has hosts that the agent can be on", (name, test) => {
    expect(test).toMatchObject({ name: `nixos-pull-${name}`, failures: [], warnings: [] });
    expect(() => parseSettings(test.settings, "host")).not.toThrow();
    expect(test.published).toContainEqual(expect.stringContaining("nixos-system-host-next"));
  });

  it("loads the mirror's password as a credential", () => {
    expect(machines["credentials"]?.credentials).toEqual([
      "mirror-password:/var/secrets/mirror-password",
    ]);
    expect(machines["follow"]?.credentials).toEqual([]);
  });

  it.skipIf(spawnSync("python3", ["--version"]).error)("has scripts that Python can read", () => {
    for (const [name, { script }] of Object.entries(machines)) {
      const { status, stderr } = spawnSync(
        "python3",
        ["-c", "import ast, sys; ast.parse(sys.stdin.read())"],
        {
          input: script,
          encoding: "utf8",
        },
      );
      expect(status, `${name}: ${stderr}`).toBe(0);
    }
  });
});
