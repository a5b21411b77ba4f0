import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Confirmation } from "../../../../agent/core/schedule/confirmation.ts";
import { isHeld, type Hold, type HoldRead } from "../../../../agent/core/schedule/hold.ts";
import { hostWaits, type OperatorCommands } from "../../../../agent/core/schedule/host-rules.ts";
import { parseSettings, type Settings } from "../../../../agent/core/settings.ts";
import {
  allowFetch,
  endOf,
  waitSchema,
  type Wait,
} from "../../../../agent/core/schedule/waiting.ts";
import { sampleDigest, samplePath, sampleRelease } from "../../../support/sample-release.ts";
import { testKey } from "../../../support/test-key.ts";

const NOW = new Date("2026-02-01T12:00:00.000Z");
const NO_COMMANDS: OperatorCommands = { hold: { kind: "none" }, confirmation: null };
const HOLD: Hold = { at: "2026-01-31T09:00:00.000Z", until: null, reason: null };

function settingsWith(changes: object): Settings {
  const minimal = { mirrors: ["file:///mnt"], publicKeys: [testKey("fleet-1").publicKey.text] };
  return parseSettings({ ...minimal, ...changes }, "web1");
}

function held(changes: Partial<Hold> = {}): HoldRead {
  return { kind: "held", hold: { ...HOLD, ...changes } };
}

function confirmationOf(changes: Partial<Confirmation> = {}): Confirmation {
  const { sequence, digest, toplevel, mode } = sampleRelease();
  return { at: NOW.toISOString(), sequence, digest, toplevel, mode, ...changes };
}

function waitsOf(settings: object, commands: Partial<OperatorCommands> = {}, now = NOW): Wait[] {
  return hostWaits(settingsWith(settings), { ...NO_COMMANDS, ...commands }, sampleRelease(), now);
}

const WINDOWS = {
  maintenance: { windows: [{ cron: "0 2 * * *", duration: "2h" }], jitter: "0s" },
};
const CONFIRM = { activation: { confirm: "required" } };

describe("a host's own rules", () => {
  test("are nothing to wait for where there are none", () => {
    expect(waitsOf({})).toEqual([]);
  });

  test("let a release wait for the window's opening, which the service alone does", () => {
    expect(waitsOf(WINDOWS)).toEqual([
      {
        reason: "WINDOW_CLOSED",
        message: "the maintenance window opens at 2026-02-02T02:00:00.000Z",
        until: "2026-02-02T02:00:00.000Z",
        ...{ binds: "service", allowsFetch: true },
      },
    ]);
    expect(waitsOf(WINDOWS, {}, new Date("2026-02-02T02:00:00.000Z"))).toEqual([]);
    expect(waitsOf(WINDOWS, {}, new Date("2026-02-02T04:00:00.000Z"))).toHaveLength(1);
  });

  test("bind everyone while the host is held, and nothing is fetched", () => {
    const until = "2026-02-03T00:00:00.000Z";
    const [wait, ...more] = waitsOf({}, { hold: held({ until, reason: "the fair" }) });
    expect(more).toEqual([]);
    expect(wait).toMatchObject({ reason: "HELD", until, binds: "everyone", allowsFetch: false });
    expect(wait?.message).toBe(
      `this host is held since ${HOLD.at} until ${until}: the fair; \`nixos-pull unhold\` ends that`,
    );
    expect(waitsOf({}, { hold: held({ until }) }, new Date(until))).toEqual([]);
  });

  test("count a hold that cannot be read as one without an end", () => {
    const [wait] = waitsOf({}, { hold: { kind: "damaged", why: "hold.json is not JSON" } });
    expect(wait).toMatchObject({ reason: "HELD", until: null, binds: "everyone" });
    expect(wait?.message).toContain("hold.json is not JSON");
  });

  test("ask for the confirmation of this system in this mode", () => {
    const reasons = (confirmation: Confirmation | null): string[] =>
      waitsOf(CONFIRM, { confirmation }).map(({ reason }) => reason);
    expect(reasons(null)).toEqual(["CONFIRMATION_MISSING"]);
    expect(reasons(confirmationOf({ toplevel: samplePath("another") }))).not.toEqual([]);
    expect(reasons(confirmationOf({ mode: "boot" }))).not.toEqual([]);
    expect(reasons(confirmationOf())).toEqual([]);
    // The same system, published again.
    expect(reasons(confirmationOf({ sequence: 6, digest: sampleDigest("6") }))).toEqual([]);
  });

  test("say what has to be done, and that only the service waits for it", () => {
    expect(waitsOf(CONFIRM)).toEqual([
      {
        reason: "CONFIRMATION_MISSING",
        message: "somebody has to run `nixos-pull confirm 7` on this host",
        ...{ until: null, binds: "service", allowsFetch: true },
      },
    ]);
    expect(waitsOf({ activation: { confirm: "none" } })).toEqual([]);
  });

  test("open a window for this host only when its turn comes", () => {
    const spread = { maintenance: { ...WINDOWS.maintenance, jitter: "30m" } };
    const [wait] = waitsOf(spread);
    const turn = new Date(wait?.until ?? NaN);
    expect(turn.getTime()).toBeGreaterThan(Date.parse("2026-02-02T02:00:00.000Z"));
    expect(waitsOf(spread, {}, turn)).toEqual([]);
    expect(waitsOf(spread, {}, new Date(turn.getTime() - 1))).toMatchObject([
      { reason: "WINDOW_CLOSED", until: turn.toISOString() },
    ]);
  });

  test("add up, and end when the last of them does", () => {
    const until = "2026-02-05T00:00:00.000Z";
    const waits = waitsOf(WINDOWS, { hold: held({ until }) });
    expect(waits.map(({ reason }) => reason)).toEqual(["HELD", "WINDOW_CLOSED"]);
    expect(endOf(waits)).toBe(until);
    expect(allowFetch(waits)).toBe(false);
    const open = waitsOf({ ...WINDOWS, ...CONFIRM });
    expect(endOf(open)).toBeNull();
    expect(allowFetch(open)).toBe(true);
  });
});

const times = fc
  .integer({ min: Date.parse("2025-01-01"), max: Date.parse("2028-01-01") })
  .map((ms) => new Date(ms));

describe("whatever the rules, commands and time", () => {
  const holds: fc.Arbitrary<HoldRead> = fc.oneof(
    fc.constant<HoldRead>({ kind: "none" }),
    fc.constant<HoldRead>({ kind: "damaged", why: "torn" }),
    fc.option(times).map((until) => held({ until: until?.toISOString() ?? null })),
  );
  const settings = fc.record({
    maintenance: fc.record({
      windows: fc.array(
        fc.record({
          cron: fc.constantFrom("0 2 * * *", "30 2 * * 6", "0 0 1-7 * 1"),
          timezone: fc.constantFrom("UTC", "Europe/Berlin", "Australia/Lord_Howe"),
          duration: fc.constantFrom("30m", "6h", "2d"),
        }),
        { maxLength: 3 },
      ),
    }),
    activation: fc.record({ confirm: fc.constantFrom("none", "required") }),
  });
  const confirmations = fc.constantFrom(null, confirmationOf());

  test("waits can be written and read, end after now, and a wait that ended is gone", () => {
    fc.assert(
      fc.property(settings, holds, confirmations, times, (rules, hold, confirmation, now) => {
        const waits = waitsOf(rules, { hold, confirmation }, now);
        expect(waits.map((wait) => waitSchema.parse(wait))).toEqual(waits);
        for (const { until, reason } of waits) {
          if (until === null) continue;
          expect(Date.parse(until)).toBeGreaterThan(now.getTime());
          const then = waitsOf(rules, { hold, confirmation }, new Date(until));
          expect(then.map((wait) => wait.reason)).not.toContain(reason);
        }
      }),
    );
  });

  test("a held host is held until its hold ends and not a moment longer", () => {
    fc.assert(
      fc.property(times, times, (until, now) => {
        expect(isHeld(held({ until: until.toISOString() }), now)).toBe(now < until);
      }),
    );
  });
});
