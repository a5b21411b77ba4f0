import { describe, expect, test } from "vitest";
import {
  MAX_HOLD_REASON,
  describeHold,
  holdReadSchema,
  holdSchema,
  isHeld,
  restartedHold,
  type Hold,
  type HoldRead,
} from "../../../../agent/core/schedule/hold.ts";

const HOLD: Hold = { at: "2026-01-31T09:00:00.000Z", until: null, reason: null };
const UNTIL = "2026-02-01T12:00:00.000Z";

test.each<[string, HoldRead, string, boolean]>([
  ["no hold", { kind: "none" }, UNTIL, false],
  ["a hold without an end", { kind: "held", hold: HOLD }, UNTIL, true],
  [
    "a hold before its end",
    { kind: "held", hold: { ...HOLD, until: UNTIL } },
    "2026-02-01T11:59:59.999Z",
    true,
  ],
  ["a hold at its end", { kind: "held", hold: { ...HOLD, until: UNTIL } }, UNTIL, false],
  ["a hold that cannot be read", { kind: "damaged", why: "torn" }, UNTIL, true],
])("with %s (%j), at %s a host is held: %s", (_, read, now, held) => {
  expect(isHeld(read, new Date(now))).toBe(held);
});

test("a hold for a while that was made by a clock that was ahead begins now", () => {
  const now = new Date("2026-02-01T12:00:00.000Z");
  const hold = {
    ...{ at: "2026-04-02T12:00:00.000Z", until: "2026-04-02T13:00:00.000Z" },
    ...{ lasts: 3_600_000, reason: "audit" },
  };
  const again = { ...hold, at: now.toISOString(), until: "2026-02-01T13:00:00.000Z" };
  expect(restartedHold({ kind: "held", hold }, now)).toEqual(again);
  // What a person gave as a time stays it, and clocks differ a little.
  const { lasts, ...until } = hold;
  expect(restartedHold({ kind: "held", hold: until }, now)).toBeNull();
  const soon = { ...again, at: "2026-02-01T12:15:00.000Z", lasts };
  expect(restartedHold({ kind: "held", hold: soon }, now)).toBeNull();
  expect(restartedHold({ kind: "damaged", why: "torn" }, now)).toBeNull();
});

describe("a hold in words", () => {
  test.each<[Exclude<HoldRead, { kind: "none" }>, string]>([
    [{ kind: "held", hold: HOLD }, `held since ${HOLD.at}`],
    [
      { kind: "held", hold: { ...HOLD, until: "2026-02-03T00:00:00.000Z", reason: "the fair" } },
      `held since ${HOLD.at} until 2026-02-03T00:00:00.000Z: the fair`,
    ],
    [{ kind: "damaged", why: "torn" }, "held, since the file of its hold is damaged: torn"],
  ])("%j", (hold, words) => {
    expect(describeHold(hold)).toBe(words);
  });
});

test("the form of a hold has bounds", () => {
  expect(holdSchema.parse({ ...HOLD, reason: "x".repeat(MAX_HOLD_REASON) })).toBeDefined();
  for (const wrong of [
    { reason: "" },
    { reason: "x".repeat(MAX_HOLD_REASON + 1) },
    { extra: 1 },
    { at: "today" },
  ]) {
    expect(holdSchema.safeParse({ ...HOLD, ...wrong }).success).toBe(false);
  }
});

test("what is known of a hold has one of three forms", () => {
  const reads: HoldRead[] = [
    { kind: "none" },
    { kind: "held", hold: HOLD },
    { kind: "damaged", why: "torn" },
  ];
  for (const read of reads) {
    expect(holdReadSchema.parse(read)).toEqual(read);
    expect(holdReadSchema.safeParse({ ...read, extra: 1 }).success).toBe(false);
  }
  expect(holdReadSchema.safeParse({ kind: "held" }).success).toBe(false);
  expect(holdReadSchema.safeParse({ kind: "damaged" }).success).toBe(false);
});
