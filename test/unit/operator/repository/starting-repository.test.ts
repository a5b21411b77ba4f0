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
        ".github/workflows/publish.yml": "16dd837c340407c5",
        ".gitignore": "a3736a4e3839e300",
        ".gitlab-ci.yml": "14842025aaa0e92b",
        "README.md": "aa549c59a311781b",
        "common.nix": "47ab0f2c93599999",
        "hardware/db.example.org.nix": "71cbfb46908e620d",
        "hardware/web1.nix": "71cbfb46908e620d",
        "hosts/db.example.org.nix": "26e0dcaab80e936d",
        "hosts/web1.nix": "71849d45254b209f",
        "keys/.gitignore": "64e5f3a5147233cb",
        "nixos.nix": "2f28cc20d29e407a",
        "pin": "d9b541dced29e823",
        "pins/nixos-pull.json": "9f9a4f1574504ae3",
        "pins/nixpkgs.json": "9f9a4f1574504ae3",
        "publish": "4c21918b63afd3e2",
        "upload": "09fbaf628e91b8b4",
      }
    `);
    expect(digestsOf(true)).toMatchInlineSnapshot(`
      {
        ".github/workflows/publish.yml": "181917101f3e20b2",
        ".gitignore": "a3736a4e3839e300",
        ".gitlab-ci.yml": "0efea792954cb70b",
        "README.md": "bce28dc4688f2243",
        "common.nix": "47ab0f2c93599999",
        "flake.nix": "9c4b5479bec3a872",
        "hardware/db.example.org.nix": "71cbfb46908e620d",
        "hardware/web1.nix": "71cbfb46908e620d",
        "hosts/db.example.org.nix": "26e0dcaab80e936d",
        "hosts/web1.nix": "71849d45254b209f",
        "keys/.gitignore": "64e5f3a5147233cb",
        "publish": "3e4f457b98dd9eb9",
        "upload": "09fbaf628e91b8b4",
      }
    `);
  });

  test("has the CI examples of the documents", async () => {
    for (const { path, text } of startingFiles({
      hosts: ["web1"],
      mirrors: MIRRORS,
      flake: false,
    })) {
      const example = { ".github/workflows/publish.yml": "github", ".gitlab-ci.yml": "gitlab" }[
        path
      ];
      if (example === undefined) continue;
      await expect(text).toMatchFileSnapshot(`../../../../agent/docs/examples/${example}.yml`);
    }
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
