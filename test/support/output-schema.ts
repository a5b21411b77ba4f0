import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import * as z from "zod";
import type { CommandOutput } from "./nixos-pull.ts";

const SCHEMAS = fileURLToPath(new URL("../../agent/docs/schema/output/", import.meta.url));

type JsonSchema = Parameters<typeof z.fromJSONSchema>[0];

/** The published schemas that were read already, by command. */
const read = new Map<string, z.ZodType>();

function schemaOf(command: string): z.ZodType {
  const known = read.get(command);
  if (known) return known;
  const text = readFileSync(`${SCHEMAS}${command}.schema.json`, "utf8");
  const schema = z.fromJSONSchema(JSON.parse(text) as JsonSchema);
  read.set(command, schema);
  return schema;
}

/** The command whose schema counts: `release show` is in the file `release-show`. */
function commandOf([command = "", part = ""]: readonly string[]): string {
  return command === "release" ? `release-${part}` : command;
}

/** One document, or with `--watch` one after the other; each ends with a bracket in column 1. */
function documentsIn(stdout: string): unknown[] {
  const texts = stdout.split(/(?<=^[}\]])\n/m).filter((text) => text.trim() !== "");
  return texts.map((text) => JSON.parse(text) as unknown);
}

/**
 * Holds what a command printed for `--json` against the JSON Schema that users are given.
 * A command that ended by itself has printed at least one document, and the document of an error
 * only if its exit code says so. Throws if something is not as the schema says.
 */
export function expectDocumentedJson(args: readonly string[], output: CommandOutput): void {
  if (!args.includes("--json") || output.exitCode === null) return;
  const command = commandOf(args);
  const isKnown = existsSync(`${SCHEMAS}${command}.schema.json`);
  const documents = documentsIn(output.stdout);
  if (documents.length === 0) throw new Error(`${args.join(" ")}: --json printed nothing`);
  for (const document of documents) {
    // What no command has is refused with the document of an error, as of any command.
    const found = schemaOf(isKnown ? command : "check").safeParse(document);
    const isFailure = Object.keys(document as object).join() === "error";
    if (found.success && !(isFailure && output.exitCode === 0) && (isKnown || isFailure)) continue;
    const why = found.error ? z.prettifyError(found.error) : "an error, but exit code 0";
    throw new Error(`${args.join(" ")}: not as documented: ${why}\n${output.stdout}`);
  }
}
