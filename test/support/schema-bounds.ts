import type * as z from "zod";

/**
 * Whether a schema takes a value that is good but for one place: `path` such as
 * `waves.0.share` is replaced by `value`, or removed if that is undefined.
 */
export function takesAt(schema: z.ZodType, good: unknown, path: string, value: unknown): boolean {
  const copy = structuredClone(good);
  const names = path.split(".");
  const last = names.pop() ?? "";
  let parent = copy as Record<string, unknown>;
  for (const name of names) parent = parent[name] as Record<string, unknown>;
  if (value === undefined) Reflect.deleteProperty(parent, last);
  else parent[last] = value;
  return schema.safeParse(copy).success;
}
