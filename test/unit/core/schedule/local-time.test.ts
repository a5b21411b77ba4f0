import { describe, expect, test } from "vitest";
import { LocalTime, timeZoneSchema } from "../../../../agent/core/schedule/local-time.ts";

const local = (text: string): number => Date.parse(`${text}Z`);
const utc = (instants: readonly number[]): string[] =>
  instants.map((instant) => new Date(instant).toISOString().replace(":00.000Z", ""));

describe("clocks on the wall", () => {
  test.each([
    ["Europe/Berlin", "2026-01-15T12:00:30", "2026-01-15T13:00:30"],
    ["Europe/Berlin", "2026-07-15T12:00:00", "2026-07-15T14:00:00"],
    ["America/New_York", "2026-01-01T03:59:59", "2025-12-31T22:59:59"],
    ["Asia/Kathmandu", "2026-02-28T20:00:00", "2026-03-01T01:45:00"],
    ["Asia/Tokyo", "2026-01-31T15:00:00", "2026-02-01T00:00:00"],
    ["UTC", "1969-12-31T23:59:59", "1969-12-31T23:59:59"],
  ])("in %s at %s UTC show %s", (timezone, instant, shown) => {
    const clocks = new LocalTime(timezone);
    // The second time it comes from memory.
    for (let round = 0; round < 2; round++) {
      expect(clocks.at(local(instant))).toBe(local(shown));
    }
  });

  test("show a time once, twice if they are set back, never if they are set forward", () => {
    const berlin = new LocalTime("Europe/Berlin");
    const at = (text: string): string[] => utc(berlin.instantsOf(local(text)));
    expect(at("2026-02-01T02:30:00")).toEqual(["2026-02-01T01:30"]);
    expect(at("2026-10-25T02:30:00")).toEqual(["2026-10-25T00:30", "2026-10-25T01:30"]);
    expect(at("2026-10-25T01:59:00")).toEqual(["2026-10-24T23:59"]);
    expect(at("2026-10-25T03:00:00")).toEqual(["2026-10-25T02:00"]);
    expect(at("2026-03-29T02:30:00")).toEqual([]);
    expect(at("2026-03-29T01:59:00")).toEqual(["2026-03-29T00:59"]);
    expect(at("2026-03-29T03:00:00")).toEqual(["2026-03-29T01:00"]);
  });

  test.each([
    ["Europe/Berlin", "2026-03-29T02:00:00", "2026-03-29T01:00"],
    ["Europe/Berlin", "2026-03-29T02:59:59", "2026-03-29T01:00"],
    ["America/New_York", "2026-03-08T02:30:00", "2026-03-08T07:00"],
    // By half an hour.
    ["Australia/Lord_Howe", "2026-10-04T02:15:00", "2026-10-03T15:30"],
    // A whole day: Samoa had no 30 December 2011.
    ["Pacific/Apia", "2011-12-30T12:00:00", "2011-12-30T10:00"],
  ])("in %s are set forward over %s at %s", (timezone, skipped, instant) => {
    const clocks = new LocalTime(timezone);
    expect(clocks.instantsOf(local(skipped))).toEqual([]);
    expect(utc([clocks.skipOver(local(skipped))])).toEqual([instant]);
  });
});

test("a time zone is one of this program's tables", () => {
  for (const name of ["UTC", "Europe/Berlin"]) expect(timeZoneSchema.parse(name)).toBe(name);
  for (const name of ["", "Mars/Olympus", "Europe/Berlin "]) {
    expect(timeZoneSchema.safeParse(name).error?.issues).toMatchObject([
      { message: "expected an IANA time zone, such as Europe/Berlin" },
    ]);
    expect(() => new LocalTime(name)).toThrow(RangeError);
  }
});
