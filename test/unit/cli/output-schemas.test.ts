import { readdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import { describe, expect, it } from "vitest";
import { outputSchemaOf } from "../../../agent/cli/options/json.ts";
import { createProgram } from "../../../agent/cli/program.ts";
import { expectDocumentedJson } from "../../support/output-schema.ts";

const SCHEMAS = fileURLToPath(new URL("../../../agent/docs/schema/output", import.meta.url));
const program = await createProgram({
  signal: new AbortController().signal,
  finish: () => undefined,
});

/** A command and those below it, each with its whole name. */
function withParts(command: CommandUnknownOpts, name: string): [string, CommandUnknownOpts][] {
  const parts = command.commands.flatMap((it) => withParts(it, `${name}-${it.name()}`));
  return [[name, command], ...parts];
}
const commands = program.commands.flatMap((it) => withParts(it, it.name()));

describe("the schemas of what --json prints", () => {
  it("are there for each command that has --json, and for no other", async () => {
    const printing = commands.filter(([, { options }]) =>
      options.some(({ long }) => long === "--json"),
    );
    expect(printing.every(([, { options }]) => outputSchemaOf(options) !== null)).toBe(true);
    const files = printing.map(([name]) => `${name}.schema.json`).sort();
    expect((await readdir(SCHEMAS)).sort()).toEqual(files);
  });

  const target = {
    hostname: "web1",
    generation: 2,
    toplevel: `/nix/store/${"0".repeat(32)}-system`,
    needsReboot: false,
  };
  const error = { error: { code: "USAGE", message: "why" } };
  const print = (exitCode: number, ...documents: unknown[]): void => {
    const stdout = documents.map((it) => `${JSON.stringify(it, null, 2)}\n`).join("");
    expectDocumentedJson(["rollback", "--json"], { exitCode, stdout, stderr: "" });
  };

  it("let pass what a command prints, once or again and again, and errors", () => {
    print(0, target);
    print(0, target, target);
    print(2, error);
  });

  it.each([
    ["an unknown key", 0, { ...target, host: "web1" }],
    ["a missing key", 0, { ...target, generation: undefined }],
    ["another type", 0, { ...target, generation: "2" }],
    ["an array", 0, [target]],
    ["an error of an unknown code", 2, { error: { code: "NO_SUCH", message: "why" } }],
    ["an error with exit code 0", 0, error],
  ])("refuse %s", (_, exitCode, document) => {
    expect(() => {
      print(exitCode, document);
    }).toThrow("not as documented");
  });

  it("want something to be printed", () => {
    expect(() => {
      print(0);
    }).toThrow("printed nothing");
  });
});
