import * as z from "zod";

/**
 * How versions of nixos-pull read each other's files. This is the one rule for every format, and
 * formats.md ("Versions") has it for people who write another agent.
 *
 * 1. **What others signed** (the manifest and the index): a host ignores keys that it does not
 *    know, at every depth, unless `requires` names a feature that it lacks. Then it follows none of
 *    it, and goes the way out that the manifest names (`supported`).
 * 2. **A key that restricts a host** (holds, windows, health checks, limits) is always named in
 *    `requires` if a release uses it: an older host would do what it was told not to. So is every
 *    value that an older host would refuse, such as a new kind of check.
 * 3. **What a host or an operator owns** (records, copies, history, reports, memories): a reader
 *    keeps what it does not know, and writes it back.
 * 4. **Operators' tools** refuse what they do not know: nobody signs, copies or prunes what he was
 *    not shown. An operator can update his tools first.
 * 5. **The outermost shape of a manifest** is frozen: `formatVersion`, `channel`, `sequence`,
 *    `epoch`, `createdAt`, `expiresAt`, `history`, `requires`, `supported`. So every agent can tell
 *    where a release stands, whether it may follow it, and what it may follow instead.
 * 6. **A new major version** (`formatVersion` 2) is needed only to change that shape, or the
 *    meaning of a key that is there. It gets a file of another name beside the old one, which
 *    stays at its address for old agents.
 */

/**
 * What later versions may name in `requires` and this one understands. 0.1.0 is the first version,
 * so that every key of it belongs to the base, which needs no name. A feature that is added here
 * has its keys or values in the map of `requirements.ts`, which compiles with a decision only.
 */
export const FEATURES = [] as const satisfies readonly string[];
export type Feature = (typeof FEATURES)[number];

/** Features that one manifest may name. */
export const MAX_FEATURES = 64;

/** Names of features: the form that every agent reads. */
export const featuresSchema = z
  .array(
    z
      .string()
      .regex(
        /^[a-z0-9][a-z0-9-]{0,63}$/,
        "expected a feature's name of lower-case letters, digits and dashes",
      ),
  )
  .max(MAX_FEATURES);

/** Which of the features that are required are not among those that are known. */
export function lackedOf(
  required: readonly string[] | undefined,
  known: readonly string[],
): readonly string[] {
  return (required ?? []).filter((feature) => !known.includes(feature));
}

/** What a reader does with keys that it does not know. */
export type UnknownKeys = "ignored" | "kept";

/**
 * The same schema for a reader that does not refuse unknown keys, at any depth: they are left out
 * of the result, or stay in it. Everything else that the schema refuses is refused.
 */
export function withUnknownKeys<T extends z.core.$ZodType>(schema: T, unknown: UnknownKeys): T {
  const open = <S extends z.core.$ZodType>(inner: S): S => withUnknownKeys(inner, unknown);
  const changed = (changes: Record<string, unknown>): T =>
    z.clone(schema, { ...schema._zod.def, ...changes });
  if (schema instanceof z.ZodObject) {
    const parts = Object.entries<z.core.$ZodType>(schema.shape);
    const shape = Object.fromEntries(parts.map(([key, part]) => [key, open(part)]));
    return changed({ shape, catchall: unknown === "kept" ? z.unknown() : undefined });
  }
  if (schema instanceof z.ZodArray) return changed({ element: open(schema.element) });
  if (schema instanceof z.ZodRecord) return changed({ valueType: open(schema.valueType) });
  if (schema instanceof z.ZodUnion) return changed({ options: schema.options.map(open) });
  if (
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodPrefault
  ) {
    return changed({ innerType: open(schema.def.innerType) });
  }
  return schema;
}

/** Those keys of a value that are not known, with what they hold. */
export function unknownKeys(value: object, known: ReadonlySet<string>): object {
  return Object.fromEntries(Object.entries(value).filter(([key]) => !known.has(key)));
}

/** A value of an enumeration that this version knows, or one of another version. */
export type Open<Value extends string> = Value | (string & Record<never, never>);

/** The longest value of an enumeration that is read. */
const MAX_VALUE = 100;

/** One of the values, or one that another version of nixos-pull has beside them. */
export function openEnum<const Values extends readonly string[]>(
  values: Values,
): z.ZodType<Open<Values[number]>> {
  return z.union([z.enum(values), z.string().max(MAX_VALUE)]);
}
