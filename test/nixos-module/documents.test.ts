import { spawnSync } from "node:child_process";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { generateKey } from "../../agent/core/formats/signing-key.ts";
import { parseSettings } from "../../agent/core/settings.ts";
import { fencedBlocks } from "../support/command-blocks.ts";
import { configFile, configured, evaluate, noNix } from "./nix.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const DOCUMENTS = [
  "README.md",
  "nixos-module/README.md",
  ...(await readdir(join(ROOT, "agent/docs"), { recursive: true }))
    .filter((name) => name.endsWith(".md"))
    .map((name) => `agent/docs/${name}`),
];

/** Every Nix text in the documents, by where it stands. */
const blocks: { where: string; text: string }[] = [];
for (const document of DOCUMENTS) {
  for (const { language, line, text } of fencedBlocks(
    await readFile(join(ROOT, document), "utf8"),
  )) {
    if (language === "nix") blocks.push({ where: `${document}:${String(line)}`, text });
  }
}

/** What a document's module says of nixos-pull, beside a configuration that is complete. */
function asModule(text: string): string {
  const keys = /"(?<name>[\w-]+):…"/g;
  const whole = text.replace(keys, (_, name: string) => JSON.stringify(generateKey(name).public));
  return `{ imports = [
    (${configured()})
    (args: {
      services.nixos-pull =
        (let block = ${whole}; in if builtins.isFunction block then block args else block).services.nixos-pull;
    })
  ]; }`;
}

describe.skipIf(noNix)(`Nix in the documents${noNix ? " (SKIPPED: no Nix)" : ""}`, () => {
  test("is there", () => {
    expect(blocks.length).toBeGreaterThan(10);
  });

  test.each(blocks)("$where is Nix", ({ text }) => {
    const parsed = spawnSync("nix-instantiate", ["--parse", "-"], {
      input: text,
      encoding: "utf8",
    });
    expect(parsed.status, parsed.stderr).toBe(0);
  });

  test.each(blocks.filter(({ text }) => /^ *services\.nixos-pull\b/m.test(text)))(
    "$where gives settings that the agent accepts",
    async ({ text }) => {
      const configuration = asModule(text);
      parseSettings(await configFile(configuration), "web1");
      expect(await evaluate("failures", configuration)).toEqual([]);
    },
  );
});
