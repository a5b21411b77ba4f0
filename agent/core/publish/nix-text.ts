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

/** Array.isArray does not narrow a readonly array. */
function isList(value: readonly Json[] | Readonly<Record<string, Json>>): value is readonly Json[] {
  return Array.isArray(value);
}
