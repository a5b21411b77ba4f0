/** The key that a later version writes into every object of its files. */
export const LATER_KEY = "later";
const LATER = { by: "0.2.0" };

/**
 * The same as a later version writes it: each object, at every depth, has one more key. What
 * lies at a key of `maps` has names as its keys, so only its values are objects of the format.
 */
export function ofLaterVersion(value: unknown, maps: readonly string[] = []): unknown {
  if (Array.isArray(value)) return value.map((it: unknown) => ofLaterVersion(it, maps));
  if (typeof value !== "object" || value === null) return value;
  return { ...parts(value, maps), [LATER_KEY]: LATER };
}

function parts(value: object, maps: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(value).map(([key, part]: [string, unknown]) => [
      key,
      maps.includes(key) && typeof part === "object" && part !== null
        ? parts(part, maps)
        : ofLaterVersion(part, maps),
    ]),
  );
}
