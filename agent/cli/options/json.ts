import { Option } from "@commander-js/extra-typings";
import type * as z from "zod";

/**
 * `--json`: one JSON document on standard output instead of text for people. The documents
 * follow `schema`; of that the JSON Schemas in `agent/docs/schema/output` are made.
 */
class JsonOption extends Option<"--json"> {
  readonly schema: z.ZodType;

  constructor(schema: z.ZodType, description: string) {
    super("--json", description);
    this.schema = schema;
  }
}

/** The option `--json` of a command that prints what `schema` describes. */
export function jsonOption(schema: z.ZodType, description = "print JSON"): Option<"--json"> {
  return new JsonOption(schema, description);
}

/** What a command with these options prints for `--json`; null if it has no such option. */
export function outputSchemaOf(options: readonly object[]): z.ZodType | null {
  return options.find((option) => option instanceof JsonOption)?.schema ?? null;
}
