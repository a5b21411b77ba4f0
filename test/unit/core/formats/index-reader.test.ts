import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseIndex } from "../../../../agent/core/formats/index-reader.ts";
import { failureOf } from "../../../support/failure.ts";
import { SAMPLE_KEY, sampleArchives } from "../../../support/sample-archive.ts";

const KEYS = [SAMPLE_KEY.publicKey];
const OPEN = { unknownKeys: "ignored" } as const;

fc.configureGlobal({ numRuns: 30 });

/** Every object in a value. */
function objectsIn(value: unknown): Record<string, unknown>[] {
  if (typeof value !== "object" || value === null) return [];
  const inner = Object.values(value).flatMap(objectsIn);
  return Array.isArray(value) ? inner : [value as Record<string, unknown>, ...inner];
}

describe("keys of a later version", () => {
  test("are ignored by hosts at every depth, and refused by operators' tools", () => {
    const additions = fc.array(fc.tuple(fc.nat(), fc.string({ maxLength: 20 }), fc.jsonValue()), {
      minLength: 1,
      maxLength: 5,
    });
    fc.assert(
      fc.property(sampleArchives, additions, ({ index }, added) => {
        const later = structuredClone(index);
        const places = objectsIn(later);
        for (const [at, key, value] of added) {
          const place = places[at % places.length];
          if (place) place[`later-${key}`] = value;
        }
        const json = Buffer.from(JSON.stringify(later));
        expect(parseIndex(json, KEYS, OPEN)).toEqual({ index, untrusted: null });
        expect(failureOf(() => parseIndex(json, KEYS, {})).code).toBe("INDEX_INVALID");
      }),
    );
  });

  test.each([
    ["twice", '"later":1,"later":2,'],
    ["in great number", Array.from({ length: 101 }, (_, at) => `"later-${at}":1,`).join("")],
    ["without end", '"later":[[['],
    ["with very long names", `"${"x".repeat(201)}":1,`],
  ])("are refused %s", (_, keys) => {
    const json = Buffer.from(`{${keys}"formatVersion":1,"compression":"none","paths":[]}`);
    expect(failureOf(() => parseIndex(json, KEYS, OPEN)).code).toBe("INDEX_INVALID");
  });

  test("do not let a known one stand twice", () => {
    const json = Buffer.from('{"formatVersion":1,"later":1,"formatVersion":1}');
    expect(failureOf(() => parseIndex(json, KEYS, OPEN)).code).toBe("INDEX_INVALID");
  });
});
