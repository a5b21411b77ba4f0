import fc from "fast-check";
import { createTask } from "node-cron";
import { describe, expect, test } from "vitest";
import {
  isOpen,
  lastOpening,
  nextOpening,
  spreadOf,
  windowSchema,
  type Window,
} from "../../../../agent/core/schedule/window.ts";

const HOUR_MS = 3_600_000;

function open(changes: Partial<Window>, now: string): boolean {
  const window = { cron: "0 2 * * *", timezone: "UTC", duration: 2 * HOUR_MS, ...changes };
  return isOpen([window], new Date(now));
}

/** The first `count` openings after a time. */
function openings(cron: string, timezone: string, after: string, count: number): string[] {
  const found: string[] = [];
  for (let now = new Date(after); found.length < count; now = new Date(found.at(-1) ?? 0)) {
    const next = nextOpening([{ cron, timezone, duration: HOUR_MS }], now);
    if (next === null) throw new Error("it never opens");
    found.push(next.toISOString().replace(":00.000Z", "Z"));
  }
  return found;
}

describe("a window from 02:00 for two hours", () => {
  test.each([
    ["01:59:59.999", false],
    ["02:00:00.000", true],
    ["03:00:30.000", true],
    ["03:59:59.999", true],
    ["04:00:00.000", false],
    ["14:00:00.000", false],
  ])("at %s is open: %s", (time, expected) => {
    expect(open({}, `2026-02-01T${time}Z`)).toBe(expected);
  });
});

describe("a window over midnight, on Saturdays from 23:00 for three hours", () => {
  test.each([
    // 2026-02-07 is a Saturday.
    ["2026-02-07T22:59:00Z", false],
    ["2026-02-07T23:00:00Z", true],
    ["2026-02-08T00:00:00Z", true],
    ["2026-02-08T01:59:59Z", true],
    ["2026-02-08T02:00:00Z", false],
    ["2026-02-08T23:30:00Z", false],
    ["2026-02-07T01:00:00Z", false],
  ])("at %s is open: %s", (now, expected) => {
    expect(open({ cron: "0 23 * * 6", duration: 3 * HOUR_MS }, now)).toBe(expected);
  });
});

describe("a window in another time zone", () => {
  test.each([
    // 02:00 in Kolkata is 20:30 the day before.
    ["Asia/Kolkata", "2026-01-31T20:29:59Z", false],
    ["Asia/Kolkata", "2026-01-31T20:30:00Z", true],
    ["Asia/Kolkata", "2026-01-31T22:29:59Z", true],
    ["Asia/Kolkata", "2026-02-01T02:30:00Z", false],
    // 02:00 in New York is 07:00 in winter and 06:00 in summer.
    ["America/New_York", "2026-02-01T06:30:00Z", false],
    ["America/New_York", "2026-02-01T07:00:00Z", true],
    ["America/New_York", "2026-07-01T06:00:00Z", true],
    ["America/New_York", "2026-07-01T08:00:00Z", false],
  ])("%s at %s is open: %s", (timezone, now, expected) => {
    expect(open({ timezone }, now)).toBe(expected);
  });
});

test("a window may last for days", () => {
  const changes = { cron: "0 22 * * 5", duration: 55 * HOUR_MS };
  // From Friday, 2026-02-06, to Monday, 05:00.
  expect(open(changes, "2026-02-06T21:59:59Z")).toBe(false);
  expect(open(changes, "2026-02-08T12:00:00Z")).toBe(true);
  expect(open(changes, "2026-02-09T04:59:59Z")).toBe(true);
  expect(open(changes, "2026-02-09T05:00:00Z")).toBe(false);
});

test("a window that opens at a second opens then", () => {
  expect(open({ cron: "30 0 2 * * *" }, "2026-02-01T02:00:29Z")).toBe(false);
  expect(open({ cron: "30 0 2 * * *" }, "2026-02-01T02:00:30Z")).toBe(true);
});

test("no window at all is always open; of several, one is enough and the first is next", () => {
  const early = { cron: "0 2 * * *", timezone: "UTC", duration: HOUR_MS };
  const late = { ...early, cron: "0 22 * * *" };
  const noon = new Date("2026-02-01T12:00:00Z");
  expect(isOpen([], noon)).toBe(true);
  expect(nextOpening([], noon)).toBeNull();
  expect(isOpen([early, late], noon)).toBe(false);
  expect(nextOpening([early, late], noon)).toEqual(new Date("2026-02-01T22:00:00Z"));
  expect(isOpen([early, late], new Date("2026-02-01T22:30:00Z"))).toBe(true);
});

describe("when clocks change", () => {
  // agent/docs/host-rules.md has these rows as a table.
  test.each<[string, string, string, string, string[]]>([
    [
      "a window in the hour that is skipped opens as the clocks are set forward",
      ...(["30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z"] as const),
      ["2026-03-29T01:00Z", "2026-03-30T00:30Z"],
    ],
    [
      "a window at the end of the hour that is skipped opens once",
      ...(["0 3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z"] as const),
      ["2026-03-29T01:00Z", "2026-03-30T01:00Z"],
    ],
    [
      "two times in the hour that is skipped are one opening",
      ...(["0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z"] as const),
      ["2026-03-29T01:00Z", "2026-03-30T00:00Z", "2026-03-30T00:30Z"],
    ],
    [
      "a window in the hour that comes twice opens the first time only",
      ...(["30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z"] as const),
      ["2026-10-25T00:30Z", "2026-10-26T01:30Z"],
    ],
    [
      "a window after the hour that comes twice is an hour later by the stopwatch",
      ...(["0 4 * * *", "Europe/Berlin", "2026-10-24T00:00:00Z"] as const),
      ["2026-10-24T02:00Z", "2026-10-25T03:00Z", "2026-10-26T03:00Z"],
    ],
    [
      "a window of every hour leaves out the one that is skipped",
      ...(["30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z"] as const),
      ["2026-03-29T00:30Z", "2026-03-29T01:30Z", "2026-03-29T02:30Z"],
    ],
    [
      "a window of every hour opens in both of those that are one",
      ...(["30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z"] as const),
      ["2026-10-25T00:30Z", "2026-10-25T01:30Z", "2026-10-25T02:30Z"],
    ],
    [
      "half an hour is skipped on Lord Howe Island",
      ...(["15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z"] as const),
      ["2026-10-03T15:30Z", "2026-10-04T15:15Z"],
    ],
    [
      "midnight is skipped in Cairo",
      ...(["0 0 * * 5", "Africa/Cairo", "2026-04-23T00:00:00Z"] as const),
      ["2026-04-23T22:00Z", "2026-04-30T21:00Z"],
    ],
    [
      "a whole day was skipped in Samoa",
      ...(["0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z"] as const),
      ["2011-12-29T22:00Z", "2011-12-30T10:00Z", "2011-12-30T22:00Z"],
    ],
  ])("%s", (_, cron, timezone, after, expected) => {
    expect(openings(cron, timezone, after, expected.length)).toEqual(expected);
  });

  test("a window over the change lasts its duration by the stopwatch", () => {
    const timezone = "Europe/Berlin";
    // From 01:00 on; the hour from 02:00 on is skipped in spring and comes twice in autumn.
    const changes = { cron: "0 1 * * *", timezone, duration: 2 * HOUR_MS };
    expect(open(changes, "2026-03-29T01:59:59Z")).toBe(true);
    expect(open(changes, "2026-03-29T02:00:00Z")).toBe(false);
    expect(open(changes, "2026-10-24T23:00:00Z")).toBe(true);
    expect(open(changes, "2026-10-25T00:59:59Z")).toBe(true);
    expect(open(changes, "2026-10-25T01:00:00Z")).toBe(false);
  });
});

test("a day that is rare comes", () => {
  expect(openings("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", 1)).toEqual(["2104-02-29T00:00Z"]);
});

describe("what is no window is refused, by its key", () => {
  test.each([
    [{ cron: "sometimes" }, "cron"],
    [{ cron: "0 25 * * *" }, "cron"],
    [{ cron: "0 2 30 2 *" }, "cron"],
    [{ timezone: "Mars/Olympus" }, "timezone"],
    [{ duration: "8d" }, "duration"],
    [{ duration: "0s" }, "duration"],
  ])("%j", (changes, key) => {
    const refused = windowSchema.safeParse({ cron: "0 2 * * *", duration: "1h", ...changes });
    expect(refused.error?.issues.map(({ path }) => path)).toEqual([[key]]);
  });
});

const ZONES = [
  "UTC",
  "Europe/Berlin",
  "America/New_York",
  "America/St_Johns",
  "Australia/Lord_Howe",
  "Asia/Kolkata",
  "Africa/Cairo",
  "Africa/Casablanca",
  "America/Nuuk",
  "Antarctica/Troll",
];
const moments = fc
  .integer({ min: Date.parse("2020-01-01T00:00:00Z"), max: Date.parse("2030-01-01T00:00:00Z") })
  .map((ms) => new Date(ms));
const fields = (min: number, max: number): fc.Arbitrary<string> =>
  fc.oneof(
    { weight: 2, arbitrary: fc.constant("*") },
    { weight: 3, arbitrary: fc.integer({ min, max }).map(String) },
    fc
      .tuple(fc.integer({ min, max }), fc.integer({ min, max }))
      .map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`),
  );
const crons = fc
  .tuple(fields(0, 59), fields(0, 23), fields(1, 28), fields(1, 12), fields(0, 6))
  .map((parts) => parts.join(" "));
const windows: fc.Arbitrary<Window> = fc.record({
  cron: crons,
  timezone: fc.constantFrom(...ZONES),
  duration: fc.integer({ min: 1, max: 168 * 3_600 }).map((seconds) => seconds * 1_000),
});

describe("of any window, at any time", () => {
  test("it is open exactly until its duration after an opening", () => {
    fc.assert(
      fc.property(windows, moments, (window, now) => {
        const opened = lastOpening(window, now);
        expect(isOpen([window], now)).toBe(opened !== null);
        if (opened === null) return;
        expect(now.getTime() - opened.getTime()).toBeGreaterThanOrEqual(0);
        expect(now.getTime() - opened.getTime()).toBeLessThan(window.duration);
        expect(lastOpening(window, opened)).toEqual(opened);
        const before = new Date(opened.getTime() - 1);
        expect(nextOpening([window], before)).toEqual(opened);
      }),
    );
  });

  test("it opens next after now, is open then, and does not open in between", () => {
    fc.assert(
      fc.property(
        windows,
        moments,
        fc.double({ min: 0, max: 1, noNaN: true }),
        (window, now, part) => {
          const next = nextOpening([window], now);
          if (next === null) throw new Error("it never opens");
          expect(next.getTime()).toBeGreaterThan(now.getTime());
          expect(lastOpening(window, next)).toEqual(next);
          const between = Math.floor((next.getTime() - now.getTime() - 1) * part);
          expect(nextOpening([window], new Date(now.getTime() + between))).toEqual(next);
        },
      ),
    );
  });

  test("where clocks never change, it opens exactly when node-cron says so", () => {
    fc.assert(
      fc.property(crons, fc.constantFrom("UTC", "Asia/Kolkata"), moments, (cron, timezone, now) => {
        const task = createTask(cron, () => undefined, { timezone });
        const minute = new Date(Math.floor(now.getTime() / 60_000) * 60_000);
        const opened = lastOpening({ cron, timezone, duration: 60_000 }, minute);
        expect(opened !== null).toBe(task.match(minute));
        void task.destroy();
      }),
      { numRuns: 500 },
    );
  });
});

describe("hosts of a fleet are spread over the first part of a window", () => {
  const MINUTE_MS = 60_000;
  const night = { cron: "0 2 * * *", timezone: "UTC", duration: 2 * HOUR_MS };
  const evening = new Date("2026-02-01T18:00:00Z");
  const opening = Date.parse("2026-02-02T02:00:00Z");
  const turnsOf = (jitter: number, window: Window, now = evening): number[] =>
    Array.from({ length: 200 }, (_, at) => {
      const turn = nextOpening([window], now, spreadOf(`web${at}`, jitter));
      return (turn?.getTime() ?? 0) - opening;
    });

  test("evenly, within the jitter, each at the same time whenever it is asked", () => {
    const turns = turnsOf(10 * MINUTE_MS, night);
    expect(Math.min(...turns)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...turns)).toBeLessThan(10 * MINUTE_MS);
    for (let tenth = 0; tenth < 10; tenth++) {
      const inTenth = turns.filter((turn) => Math.floor(turn / MINUTE_MS) === tenth);
      expect(inTenth.length).toBeGreaterThan(5);
    }
    expect(turnsOf(10 * MINUTE_MS, night, new Date("2026-02-01T23:59:59Z"))).toEqual(turns);
  });

  test("over a quarter of a short window at most", () => {
    const turns = turnsOf(HOUR_MS, { ...night, duration: 20 * MINUTE_MS });
    expect(Math.max(...turns)).toBeLessThan(5 * MINUTE_MS);
    expect(Math.max(...turns)).toBeGreaterThan(4 * MINUTE_MS);
  });

  test("not at all without a jitter", () => {
    expect(new Set(turnsOf(0, night))).toEqual(new Set([0]));
  });

  test("in another order at each opening", () => {
    const order = (now: Date): number[] =>
      [...turnsOf(10 * MINUTE_MS, night, now).entries()]
        .sort(([, a], [, b]) => a - b)
        .map(([host]) => host);
    expect(order(evening)).not.toEqual(order(new Date("2026-02-02T18:00:00Z")));
  });

  test("and a window that opens again before it closes stays open", () => {
    const hourly = { cron: "0 * * * *", timezone: "UTC", duration: 3 * HOUR_MS };
    const spread = spreadOf("web1", 30 * MINUTE_MS);
    for (let minute = 0; minute < 120; minute++) {
      expect(isOpen([hourly], new Date(opening + minute * MINUTE_MS), spread)).toBe(true);
    }
  });

  test("a host's turn is when its window opens for it, and lasts to the window's end", () => {
    fc.assert(
      fc.property(
        fc.string({ minLength: 1 }),
        fc.integer({ min: 0, max: 3 * HOUR_MS }),
        fc.integer({ min: 0, max: 26 * HOUR_MS }),
        (hostname, jitter, ms) => {
          const now = new Date(evening.getTime() + ms);
          const spread = spreadOf(hostname, jitter);
          const turn = nextOpening([night], now, spread)?.getTime() ?? 0;
          expect(turn).toBeGreaterThan(now.getTime());
          expect(isOpen([night], new Date(turn), spread)).toBe(true);
          expect(isOpen([night], new Date(turn - 1), spread)).toBe(false);
          // Nobody goes outside of the window, and its last three quarters are everybody's.
          const last = lastOpening(night, now)?.getTime();
          if (last === undefined) expect(isOpen([night], now, spread)).toBe(false);
          else if (now.getTime() >= last + night.duration / 4) {
            expect(isOpen([night], now, spread)).toBe(true);
          }
        },
      ),
    );
  });
});
