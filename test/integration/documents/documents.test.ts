import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { EXAMPLES } from "../../../scripts/man-examples.mjs";
import { commandBlocks, type CommandBlock } from "../../support/command-blocks.ts";
import { looseDifference } from "../../support/loose-output.ts";
import { BLOCKS_NOT_RUN } from "./not-run.ts";
import { SCENES } from "./worlds.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;
const DOCUMENTS = [
  "README.md",
  "nixos-module/README.md",
  ...(await readdir(join(ROOT, "agent/docs"), { recursive: true }))
    .filter((name) => name.endsWith(".md"))
    .map((name) => `agent/docs/${name}`)
    .sort(),
];

const blocks = new Map<string, CommandBlock[]>();
for (const document of DOCUMENTS) {
  const text = await readFile(join(ROOT, document), "utf8");
  blocks.set(document, commandBlocks(document, text));
}

/** The examples of the manual pages are one story. */
const MANUAL_PAGES = "manual pages";
blocks.set(
  MANUAL_PAGES,
  EXAMPLES.map(({ command }, index) => {
    const first = command.split("\n")[0] ?? "";
    return { document: MANUAL_PAGES, line: index + 1, first, commands: [{ command, shown: [] }] };
  }),
);

function isNotRun({ document, first }: CommandBlock): boolean {
  return BLOCKS_NOT_RUN.some((one) => one.document === document && one.first === first);
}

/** The blocks of a document that are to be run. */
function blocksToRun(document: string): CommandBlock[] {
  return (blocks.get(document) ?? []).filter((block) => !isNotRun(block));
}

test("every block of commands is run, or stands in not-run.ts", () => {
  const without = [...blocks.keys()].filter(
    (name) => blocksToRun(name).length > 0 && !SCENES[name],
  );
  expect(without, "add a scene in worlds.ts, or the blocks to not-run.ts").toEqual([]);
});

test("what stands in not-run.ts or has a scene stands in a document", () => {
  const found = [...blocks.values()].flat();
  for (const { document, first } of BLOCKS_NOT_RUN) {
    const block = found.find((one) => one.document === document && one.first === first);
    expect(block, `${document}: ${first}`).toBeDefined();
  }
  for (const document of Object.keys(SCENES)) {
    expect(blocksToRun(document), document).not.toEqual([]);
  }
});

/** Documents that show a command which is refused show its error code. */
const SHOWN_ERROR = /^nixos-pull: [A-Z]+_[A-Z_]+: /;

test.each(Object.keys(SCENES))("%s does what it shows", { timeout: 600_000 }, async (document) => {
  const scene = await SCENES[document]?.();
  if (!scene) throw new Error(`no scene for ${document}`);
  for (const { commands, line } of blocksToRun(document)) {
    for (const { command, shown } of commands) {
      await scene.before?.[command]?.();
      const { exitCode, text } = await scene.world.run(command);
      const where = `${document}:${String(line)}: ${command}\n${text}`;
      const isRefused = shown.some((one) => SHOWN_ERROR.test(one));
      const wanted = scene.exits?.[command] ?? [0];
      if (isRefused) expect(exitCode, where).not.toBe(0);
      else expect(wanted, where).toContain(exitCode);
      if (shown.length === 0) continue;
      expect(looseDifference(shown, text), where).toBeNull();
    }
  }
});
