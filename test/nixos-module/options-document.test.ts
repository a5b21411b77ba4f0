import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { MODULE_OPTIONS, moduleOptions } from "../../scripts/module-options.mjs";
import { evaluate, noNix } from "./nix.ts";

const document = await readFile(new URL(`../../${MODULE_OPTIONS}`, import.meta.url), "utf8");

describe.skipIf(noNix)("nixos-module/options.md", () => {
  it("is what the module says, with the stand-in and with the nixpkgs that is named", async () => {
    expect(await moduleOptions(process.env["NIXOS_PULL_NIXPKGS"])).toBe(document);
  });

  it("has every option once", async () => {
    const headings = [...document.matchAll(/^## `(services\.nixos-pull\.\S+)`$/gm)].map(
      ([, name = ""]) => name.replaceAll(/\.(\*|<name>)/g, ""),
    );
    const settings = Object.keys((await evaluate("settingsOptions")) as object);
    const others = Object.keys((await evaluate("options")) as object);
    expect(headings.sort()).toEqual(
      [
        "services.nixos-pull.settings",
        ...others.map((name) => `services.nixos-pull.${name}`),
        ...settings.map((name) => `services.nixos-pull.settings.${name}`),
      ].sort(),
    );
  });
});
