import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { describe, expect, test } from "vitest";

// agent/docs/architecture.md, as far as it can be read off the imports. Imports of types alone
// count as well: who has to read a file to understand another is the same for both.

const AGENT = fileURLToPath(new URL("../../agent/", import.meta.url));

/** The layers, and what each may import beside itself; `main.ts` is above them all. */
const LAYERS: Readonly<Record<string, readonly string[]>> = {
  core: [],
  effects: ["core"],
  host: ["effects", "core"],
  operator: ["effects", "core"],
  fleet: ["effects", "core"],
  cli: ["host", "operator", "fleet", "effects", "core"],
  "main.ts": ["cli", "host", "operator", "fleet", "effects", "core"],
};

/** What core/ may import from packages: nothing that does I/O. */
const PURE_PACKAGES = ["node-cron", "node:crypto", "node:url", "node:zlib", "zod"];

/** By file, relative to agent/: the files and the packages that it imports. */
const IMPORTS = new Map(
  readdirSync(AGENT, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .sort()
    .map((file) => [file, importsOf(file)] as const),
);

function importsOf(file: string): { files: string[]; packages: string[] } {
  const { importedFiles } = ts.preProcessFile(readFileSync(join(AGENT, file), "utf8"), true, true);
  const names = importedFiles.map(({ fileName }) => fileName);
  return {
    files: names
      .filter((name) => name.startsWith("."))
      .map((name) => normalize(join(dirname(file), name))),
    packages: names.filter((name) => !name.startsWith(".")),
  };
}

/** Groups of files each of which can be reached from every other one (Tarjan's algorithm). */
function circles(): string[][] {
  const found: string[][] = [];
  const numbers = new Map<string, number>();
  const stack: string[] = [];
  const visit = (file: string): number => {
    const number = numbers.size;
    numbers.set(file, number);
    stack.push(file);
    let lowest = number;
    for (const next of IMPORTS.get(file)?.files ?? []) {
      const known = numbers.get(next);
      if (known === undefined) lowest = Math.min(lowest, visit(next));
      else if (stack.includes(next)) lowest = Math.min(lowest, known);
    }
    if (lowest === number) {
      const group = stack.splice(stack.indexOf(file));
      if (group.length > 1) found.push(group.sort());
    }
    return lowest;
  };
  for (const file of IMPORTS.keys()) if (!numbers.has(file)) visit(file);
  return found;
}

describe("the files of agent/", () => {
  test("are found, and so is every file that they import", () => {
    expect(IMPORTS.size).toBeGreaterThan(150);
    expect(IMPORTS.get("core/update/machine.ts")?.files).toContain("core/update/record.ts");
    const missing = [...IMPORTS.values()].flatMap(({ files }) =>
      files.filter((file) => !IMPORTS.has(file)),
    );
    expect(missing).toEqual([]);
  });

  test("do not import each other in circles", () => {
    expect(circles().map((group) => group.join(" → "))).toEqual([]);
  });

  test("import only from their own layer and those below it", () => {
    const layerOf = (file: string): string => file.split("/")[0] ?? "";
    const wrong = [...IMPORTS].flatMap(([file, { files }]) => {
      const layer = layerOf(file);
      const allowed = [layer, ...(LAYERS[layer] ?? [])];
      return files
        .filter((other) => !allowed.includes(layerOf(other)))
        .map((other) => `${file} imports ${other}`);
    });
    expect(wrong).toEqual([]);
    expect([...new Set([...IMPORTS.keys()].map(layerOf))].sort()).toEqual(
      Object.keys(LAYERS).sort(),
    );
  });

  test("of host/ reach what is outside through ports, but for the one that makes them", () => {
    const users = [...IMPORTS].filter(
      ([file, { files }]) =>
        file.startsWith("host/") && files.some((other) => other.startsWith("effects/")),
    );
    expect(users.map(([file]) => file)).toEqual(["host/compose.ts"]);
  });

  test("of core/ import no package that does I/O", () => {
    const packages = [...IMPORTS].flatMap(([file, imports]) =>
      file.startsWith("core/") ? imports.packages : [],
    );
    expect([...new Set(packages)].sort()).toEqual(PURE_PACKAGES);
    // Of node-cron, this one file knows which parts are pure.
    const users = [...IMPORTS].filter(([, imports]) => imports.packages.includes("node-cron"));
    expect(users.map(([file]) => file)).toEqual(["core/schedule/cron.ts"]);
  });
});

test("architecture.md names every folder of agent/ that has code, in the chapter of its layer", () => {
  const text = readFileSync(join(AGENT, "docs/architecture.md"), "utf8");
  const chapters = new Map(
    text.split(/^## /m).map((chapter) => [chapter.split("\n")[0] ?? "", chapter] as const),
  );
  const folders = new Set([...IMPORTS.keys()].map(dirname).filter((folder) => folder !== "."));
  const unnamed = [...folders].filter((folder) => {
    const [layer = "", ...rooms] = folder.split("/");
    const chapter = chapters.get(`${layer}/`);
    return !chapter || (rooms.length > 0 && !chapter.includes(`${rooms.join("/")}/\``));
  });
  expect(unnamed).toEqual([]);
});
