/** A JSON value, as Nix programs print one. */
export type Json =
  null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };

/** Text as a Nix string in quotes; nothing in it is interpreted. */
export function nixString(text: string): string {
  const escaped = text
    .replace(/["\\]|\$(?=\{)/g, "\\$&")
    .replaceAll("\n", "\\n")
    .replaceAll("\r", "\\r")
    .replaceAll("\t", "\\t");
  return `"${escaped}"`;
}

const PLAIN_NAME = /^[A-Za-z_][A-Za-z0-9_'-]*$/;

/** A name in a path of attributes, in quotes if it needs them. */
export function nixName(name: string): string {
  return PLAIN_NAME.test(name) ? name : nixString(name);
}

/** A value as a person would write it in Nix, on one line. */
export function nixText(value: Json): string {
  if (value === null || typeof value === "boolean" || typeof value === "number") {
    return String(value);
  }
  if (typeof value === "string") return nixString(value);
  if (isList(value)) return ["[", ...value.map(nixText), "]"].join(" ");
  const entries = Object.entries(value).map(
    ([name, child]) => `${nixName(name)} = ${nixText(child)};`,
  );
  return ["{", ...entries, "}"].join(" ");
}

/** Where a value stands in a text that is at most so many columns wide. */
export interface NixLayout {
  readonly columns: number;
  /** What stands before the value on its first line. */
  readonly before?: string;
  /** What stands behind the value on its last line. */
  readonly after?: string;
}

/**
 * A value on one line if it fits; otherwise each of its parts on lines of their own, further right.
 * A text that does not fit stays on one line.
 */
export function nixLines(value: Json, { columns, before = "", after = "" }: NixLayout): string[] {
  const line = `${before}${nixText(value)}${after}`;
  if (line.length <= columns || typeof value !== "object" || value === null) return [line];
  const list = isList(value);
  const margin = " ".repeat(before.length - before.trimStart().length + 2);
  const parts = list
    ? value.map((part) => nixLines(part, { columns, before: margin }))
    : Object.entries(value).map(([name, part]) =>
        nixLines(part, { columns, before: `${margin}${nixName(name)} = `, after: ";" }),
      );
  const [open, close] = list ? ["[", "]"] : ["{", "}"];
  return [`${before}${open}`, ...parts.flat(), `${margin.slice(2)}${close}${after}`];
}

/** Array.isArray does not narrow a readonly array. */
function isList(value: readonly Json[] | Readonly<Record<string, Json>>): value is readonly Json[] {
  return Array.isArray(value);
}
