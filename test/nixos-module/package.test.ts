import { spawnSync } from "node:child_process";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HASHES_FILE, lockfileHash, nodeModulesHash } from "../../scripts/node-modules-hashes.mjs";
import { evaluate, evaluated, nix, noNix, usesNixpkgs } from "./nix.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

interface Recorded {
  readonly lockfile: string;
  readonly hashes: Readonly<Record<string, string>>;
}

async function recorded(): Promise<Recorded> {
  return JSON.parse(await readFile(HASHES_FILE, "utf8")) as Recorded;
}

/** This machine as Nix calls it; undefined where no hash is recorded for it. */
const SYSTEM = new Map([
  ["linux x64", "x86_64-linux"],
  ["linux arm64", "aarch64-linux"],
]).get(`${process.platform} ${process.arch}`);
const registry = spawnSync("npm", ["ping"], { timeout: 15_000 }).status === 0;

describe("node-modules-hashes.json", () => {
  it("belongs to package-lock.json", async () => {
    const { lockfile } = await recorded();
    expect(
      lockfile,
      "package-lock.json has changed: run `npm run node-modules-hashes`, where npm's registry can be reached",
    ).toBe(await lockfileHash());
  });

  it.skipIf(noNix || !registry || SYSTEM === undefined)(
    "has the hash of what npm installs here (left out where no registry can be reached)",
    async () => {
      const system = SYSTEM ?? "";
      expect(await nodeModulesHash(system)).toBe((await recorded()).hashes[system]);
    },
    10 * 60_000,
  );
});

describe.skipIf(noNix)("package.nix", () => {
  it("builds the version and the program of package.json", async () => {
    const { version } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8")) as {
      version: string;
    };
    expect(await evaluate("package.nixos-pull")).toMatchObject({
      pname: "nixos-pull",
      version,
      meta: { mainProgram: "nixos-pull", license: { spdxId: "MIT" } },
    });
  });

  it("keeps the dependencies out of the result", async () => {
    const { disallowedReferences } = (await evaluate("package.nixos-pull")) as {
      disallowedReferences: string[];
    };
    expect(disallowedReferences).toEqual([expect.stringContaining("node-modules")]);
  });

  it.each(["x86_64-linux", "aarch64-linux"])(
    "fetches the dependencies under the recorded hash on %s",
    async (system) => {
      const { hashes } = await recorded();
      const { value, stderr } = await evaluated("package.nodeModules", "{ }", system);
      expect(hashes[system]).toMatch(/^sha256-[A-Za-z0-9+/]{43}=$/);
      expect(value).toMatchObject({
        outputHash: hashes[system],
        outputHashMode: "recursive",
        dontFixup: true,
      });
      expect(stderr).not.toContain("no hash");
    },
  );

  it("says what to do where no hash is recorded", async () => {
    const { value, stderr } = await evaluated("package.nodeModules", "{ }", "riscv64-linux");
    expect((value as { outputHash: string }).outputHash).toMatch(/^sha256-A+=$/);
    expect(stderr).toMatch(/no hash .* recorded for riscv64-linux.*"got:".*nodeModulesHash/s);
  });

  // nixpkgs' own filesets ask the file system for more than a dry evaluation can tell.
  it.skipIf(usesNixpkgs)("is rebuilt for its sources alone", async () => {
    expect(await evaluate("package.sources")).toEqual({
      "nixos-pull": ["agent", "package.json", "scripts/build.mjs", "tsconfig.json"],
      nodeModules: ["package.json", "package-lock.json"],
    });
  });
});

/** A package set from which the package becomes a derivation, as far as that has a path. */
const PACKAGES_FLAKE = `{
  outputs = { self }: let
    lib = import ./lib.nix;
    packagesFor = system: let
      pkgs = import ./pkgs.nix { inherit lib system; };
      stdenvNoCC = pkgs.stdenvNoCC // {
        mkDerivation = { pname, version, ... }:
          derivation { inherit system; name = "\${pname}-\${version}"; builder = "/bin/sh"; };
      };
    in pkgs // {
      callPackage = file: arguments: pkgs.callPackage file ({ inherit stdenvNoCC; } // arguments);
    };
  in {
    legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] packagesFor;
  };
}`;

describe.skipIf(noNix)("flake.nix", () => {
  let directory: string;
  let flake: string;
  /** What stands for the input, since nixpkgs cannot be fetched here. */
  let override: string[];

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "nixos-pull-"));
    const copy = join(directory, "flake");
    for (const file of ["flake.nix", "nixos-module", "package.json", "package-lock.json"]) {
      await cp(join(ROOT, file), join(copy, file), { recursive: true });
    }
    flake = `path:${copy}`;
    const packages = join(directory, "packages");
    const here = join(ROOT, "test/nixos-module");
    await cp(join(here, "stand-in-lib.nix"), join(packages, "lib.nix"));
    await cp(join(here, "stand-in-pkgs.nix"), join(packages, "pkgs.nix"));
    await writeFile(join(packages, "flake.nix"), PACKAGES_FLAKE);
    override = ["--override-input", "nixpkgs", `path:${packages}`, "--no-write-lock-file"];
  });

  afterAll(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  it("passes nix flake check", async () => {
    await nix(directory, "flake", "check", flake, ...override);
  });

  it("has the module, the overlay, the package's function, packages and apps", async () => {
    const args = ["flake", "show", "--json", flake, ...override];
    const shown = JSON.parse(await nix(directory, ...args)) as object;
    const both = { default: {}, "nixos-pull": {} };
    expect(shown).toMatchObject({
      nixosModules: { default: { type: "nixos-module" }, "nixos-pull": { type: "nixos-module" } },
      overlays: { default: { type: "nixpkgs-overlay" } },
      lib: {},
      packages: { "x86_64-linux": both, "aarch64-linux": both },
      apps: {
        "x86_64-linux": { default: { type: "app" }, "nixos-pull": { type: "app" } },
        "aarch64-linux": both,
      },
    });
  });

  it("runs the program of the package by nix run, in a pure evaluation", async () => {
    const evaluated = async (output: string): Promise<string> =>
      nix(directory, "eval", "--raw", `${flake}#${output}`, ...override);
    const system = SYSTEM ?? "x86_64-linux";
    const path = await evaluated(`packages.${system}.default.outPath`);
    expect(path).toMatch(/-nixos-pull-\d[\d.]*$/);
    expect(await evaluated(`apps.${system}.default.program`)).toBe(`${path}/bin/nixos-pull`);
  });

  it.each([
    ["overlays.default", "overlay: (overlay pkgs pkgs).nixos-pull"],
    ["lib.package", "package: package pkgs"],
  ])("gives the package through %s", async (output, use) => {
    const here = join(ROOT, "test/nixos-module");
    const pkgs = `import ${here}/stand-in-pkgs.nix { lib = import ${here}/stand-in-lib.nix; }`;
    const apply = `output: let pkgs = ${pkgs}; in ((${use}) output).name`;
    const name = await nix(
      directory,
      "eval",
      "--impure",
      "--raw",
      `${flake}#${output}`,
      ...override,
      "--apply",
      apply,
    );
    expect(name).toMatch(/^nixos-pull-\d/);
  });
});
