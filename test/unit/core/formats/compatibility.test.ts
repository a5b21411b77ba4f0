import { expect, test } from "vitest";
import * as z from "zod";
import { withUnknownKeys } from "../../../../agent/core/formats/compatibility.ts";

const inner = z.strictObject({ a: z.int().default(3) });
const schema = z
  .strictObject({
    list: z.array(inner),
    record: z.record(z.string().max(5), inner),
    choice: z.union([z.literal("now"), inner]),
    kinds: z.discriminatedUnion("kind", [
      z.strictObject({ kind: z.literal("x"), inner }),
      z.strictObject({ kind: z.literal("y") }),
    ]),
    maybe: inner.optional(),
    none: inner.nullable(),
    given: inner.prefault({}),
    assumed: inner.default({ a: 4 }),
  })
  .refine(({ list }) => list.length < 3, { error: "expected fewer" });

const more = { a: 1, more: { deep: true } };
const value = {
  list: [more],
  record: { r: more },
  choice: more,
  kinds: { kind: "x", inner: more, more: 1 },
  maybe: more,
  none: more,
  given: more,
  assumed: more,
  more: 1,
};
const known = {
  list: [{ a: 1 }],
  record: { r: { a: 1 } },
  choice: { a: 1 },
  kinds: { kind: "x", inner: { a: 1 } },
  ...{ maybe: { a: 1 }, none: { a: 1 }, given: { a: 1 }, assumed: { a: 1 } },
};

test("unknown keys are ignored or kept at every depth, and refused by the schema itself", () => {
  expect(schema.safeParse(value).success).toBe(false);
  expect(schema.parse(known)).toEqual(known);
  expect(withUnknownKeys(schema, "ignored").parse(value)).toEqual(known);
  expect(withUnknownKeys(schema, "kept").parse(value)).toEqual(value);
});

test("all else is as in the schema itself", () => {
  for (const unknown of ["ignored", "kept"] as const) {
    const open = withUnknownKeys(schema, unknown);
    for (const wrong of [
      { list: [more, more, more] },
      { list: [{ a: "1" }] },
      { record: { "a long name": more } },
      { choice: "later" },
      { kinds: { kind: "z" } },
    ]) {
      expect(open.safeParse({ ...value, ...wrong }).success, JSON.stringify(wrong)).toBe(false);
    }
    expect(open.parse({ ...known, list: [{}], assumed: undefined })).toMatchObject({
      list: [{ a: 3 }],
      assumed: { a: 4 },
    });
  }
  // The schema that was given is what it was.
  expect(schema.safeParse({ ...known, more: 1 }).success).toBe(false);
});
