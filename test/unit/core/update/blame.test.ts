import { describe, expect, test } from "vitest";
import { isOwnFault, blameFor, nextTry } from "../../../../agent/core/update/blame.ts";

const HOUR = 60 * 60_000;
const never = (): boolean => {
  throw new Error("not asked");
};

describe("the blame", () => {
  test("is the world's for a mirror that gives nothing, and for a name that the network gave", () => {
    expect(blameFor({ kind: "mirror" }, never)).toBe("world");
    expect(blameFor({ kind: "name" }, never)).toBe("world");
  });

  test("is the system's for a check that does not pass and a system that does not run", () => {
    expect(blameFor({ kind: "check" }, never)).toBe("own");
    expect(blameFor({ kind: "wrongSystem" }, never)).toBe("own");
  });

  test("is the world's only if every unit is defined as before", () => {
    const units = ["a.service", "b.service"];
    const unchanged = (known: string[]) => (unit: string) => known.includes(unit);
    expect(blameFor({ kind: "units", units }, unchanged(units))).toBe("world");
    expect(blameFor({ kind: "units", units }, unchanged(["a.service"]))).toBe("own");
    expect(blameFor({ kind: "units", units: [] }, unchanged(units))).toBe("own");
  });
});

describe("what may be the world's fault is tried again", () => {
  const policy = { attempts: 4, wait: HOUR };

  test("with growing waits, and then no more", () => {
    expect([1, 2, 3, 4, 5].map((failures) => nextTry(failures, false, policy))).toEqual([
      ...[HOUR, 4 * HOUR, 16 * HOUR, null, null],
    ]);
  });

  test("once, if each try takes a reboot", () => {
    expect([1, 2, 3].map((failures) => nextTry(failures, true, policy))).toEqual([
      HOUR,
      null,
      null,
    ]);
  });

  test("never, if one attempt is all that is allowed", () => {
    expect(nextTry(1, false, { attempts: 1, wait: HOUR })).toBeNull();
    expect(nextTry(1, true, { attempts: 1, wait: HOUR })).toBeNull();
  });

  test("at the latest after a day", () => {
    expect(nextTry(20, false, { attempts: 100, wait: HOUR })).toBe(24 * HOUR);
    expect(nextTry(1, false, { attempts: 100, wait: 48 * HOUR })).toBe(24 * HOUR);
  });
});

test("an error that ended a step speaks against a system if only that can bring it", () => {
  const own = ["HEALTH_FAILED", "SPECIALISATION_MISSING", "NOT_A_SYSTEM"] as const;
  expect(own.map(isOwnFault)).toEqual([true, true, true]);
  const worlds = ["DISK_FULL", "TOOL_TIMEOUT", "INTERNAL", "UNSAFE_FILE"] as const;
  expect(worlds.map(isOwnFault)).toEqual([false, false, false, false]);
});
