import * as z from "zod";

/** `TOPLEVEL/switch-inhibitors`: what a live switch must not change, by name. */
const inhibitorsSchema = z.record(z.string(), z.string());

/** Reads the file's text; null if it is not in NixOS's form. */
export function parseInhibitors(text: string): ReadonlyMap<string, string> | null {
  try {
    const parsed = inhibitorsSchema.safeParse(JSON.parse(text));
    return parsed.success ? new Map(Object.entries(parsed.data)) : null;
  } catch {
    return null;
  }
}

/** Whether two systems differ in an inhibitor that both have, as NixOS's own check compares. */
export function differ(
  one: ReadonlyMap<string, string> | null,
  other: ReadonlyMap<string, string> | null,
): boolean {
  return [...(one ?? [])].some(([name, value]) => (other?.get(name) ?? value) !== value);
}
