import { createHash } from "node:crypto";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { startingFiles } from "../../../../agent/operator/repository/starting-repository.ts";
import { fillTemplate } from "../../../../agent/operator/repository/template-file.ts";
import { nixosPull } from "../../../support/nixos-pull.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const HOSTS = ["web1", "db.example.org"];
const MIRRORS = ["https://releases.example.org/a", "file:///mnt/usb"];

/** Every file of both kinds of repository, by path, with what its text hashes to. */
function digestsOf(flake: boolean): Record<string, string> {
  return Object.fromEntries(
    startingFiles({ hosts: HOSTS, mirrors: MIRRORS, flake }).map(({ path, text }) => [
      path,
      createHash("sha256").update(text).digest("hex").slice(0, 16),
    ]),
  );
}

describe("the repository that init writes", () => {
  test("is, byte for byte, what was reviewed", () => {
    // Repositories are compared with these files by eye: change a digest only on purpose.
    expect(digestsOf(false)).toMatchInlineSnapshot(`
      {
        ".github/workflows/publish.yml": "03e4c09c5811aa94",
        ".gitignore": "74105f6c25da308e",
        "README.md": "2a436baf6b8e4a42",
        "common.nix": "9c205145f656da57",
        "hardware/db.example.org.nix": "497188e4e49f0b87",
        "hardware/web1.nix": "497188e4e49f0b87",
        "hosts.nix": "3c8761166972c320",
        "hosts/db.example.org.nix": "ed26bf6ab5e6938a",
        "hosts/web1.nix": "f6e1977064a0adf1",
        "keys/.gitignore": "64e5f3a5147233cb",
        "nixos.nix": "e56a1695578f7920",
        "pin": "ed41e6835e25cd72",
        "pins/nixos-pull.json": "9f9a4f1574504ae3",
        "pins/nixpkgs.json": "9f9a4f1574504ae3",
        "publish": "aa313138347eb070",
        "upload": "23cba9e19f5136b6",
      }
    `);
    expect(digestsOf(true)).toMatchInlineSnapshot(`
      {
        ".github/workflows/publish.yml": "935183a587de0f41",
        ".gitignore": "74105f6c25da308e",
        "README.md": "bba9fb36a7c2d771",
        "common.nix": "9c205145f656da57",
        "flake.nix": "bad06a706ccba193",
        "hardware/db.example.org.nix": "497188e4e49f0b87",
        "hardware/web1.nix": "497188e4e49f0b87",
        "hosts.json": "ee247b91effde7b2",
        "hosts/db.example.org.nix": "ed26bf6ab5e6938a",
        "hosts/web1.nix": "f6e1977064a0adf1",
        "keys/.gitignore": "64e5f3a5147233cb",
        "publish": "b3d07d483bba275c",
        "upload": "23cba9e19f5136b6",
      }
    `);
  });

  test.each([false, true])("is the same from the bundle (flake: %s)", async (flake) => {
    const directory = await temporaryDirectory();
    const written = await nixosPull([
      ...["init", directory, ...(flake ? ["--flake"] : [])],
      ...HOSTS.flatMap((host) => ["--host", host]),
      ...MIRRORS.flatMap((mirror) => ["--mirror", mirror]),
    ]);
    expect(written.exitCode, written.stderr).toBe(0);
    const files = startingFiles({ hosts: HOSTS, mirrors: MIRRORS, flake });
    const entries = await readdir(directory, { recursive: true, withFileTypes: true });
    expect(entries.filter((entry) => entry.isFile())).toHaveLength(files.length);
    for (const { path, text } of files) {
      expect(await readFile(join(directory, path), "utf8"), path).toBe(text);
    }
  });

  test("quotes what it fills in", () => {
    const mirror = 'https://example.org/${x}/"\\';
    const files = startingFiles({ hosts: ["db.example.org"], mirrors: [mirror], flake: false });
    const textOf = (path: string): string => files.find((it) => it.path === path)?.text ?? "";
    expect(textOf("common.nix")).toContain('        "https://example.org/\\${x}/\\"\\\\"\n');
    expect(textOf("README.md")).toContain(`nix-build nixos.nix -A '"db.example.org".system'`);
    expect(textOf("hosts/db.example.org.nix")).toContain("[ ../hardware/db.example.org.nix ]");
  });

  test("a template is not filled while a value is missing", () => {
    expect(() => fillTemplate("host.nix", {})).toThrow("host.nix: no value for @hostname@");
    expect(() => fillTemplate("host.nix", { constructor: "x" })).toThrow("@hostname@");
  });
});
