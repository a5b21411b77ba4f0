import fc from "fast-check";
import { placeInOrder } from "../../../../agent/core/release/host-order.ts";
import { describe, expect, test } from "vitest";
import { EMPTY_RECORD } from "../../../../agent/core/update/record.ts";
import {
  manifestSchema,
  type Manifest,
  type Rollout,
} from "../../../../agent/core/formats/manifest.ts";
import {
  newSalt,
  resumeRollout,
  rolloutWaits,
  turnOf,
} from "../../../../agent/core/release/rollout.ts";
import { endOf } from "../../../../agent/core/schedule/waiting.ts";
import { sampleHost, sampleManifest } from "../../../support/sample-release.ts";

const START = "2026-02-01T00:00:00.000Z";
const HOUR = 3_600_000;
const MANY = Array.from({ length: 2_000 }, (_, at) => `web${at}`);

function rollout(changes: Partial<Rollout> = {}): Rollout {
  return { start: START, salt: "stable 7", ...changes };
}

function at(hours: number): Date {
  return new Date(Date.parse(START) + hours * HOUR);
}

function waits(manifest: Manifest, clock: Date, hostname = "web1") {
  return rolloutWaits(manifest, hostname, EMPTY_RECORD, clock);
}

function reasons(manifest: Manifest, clock: Date, hostname = "web1"): string[] {
  return waits(manifest, clock, hostname).map(({ reason }) => reason);
}

function turnHours(policy: Rollout, hostname: string, groups?: string[]): number | null {
  const turn = turnOf(policy, hostname, groups);
  return turn === null ? null : (turn - Date.parse(START)) / HOUR;
}

describe("the order of hosts", () => {
  test("is the same for the same salt on every machine", () => {
    expect(placeInOrder("stable 7", "web1")).toBe(0.4882355052155134);
    expect(placeInOrder("stable 8", "web1")).not.toBe(placeInOrder("stable 7", "web1"));
  });

  test("spreads hosts evenly", () => {
    for (const share of [0.01, 0.1, 0.5, 0.9]) {
      const first = MANY.filter((name) => placeInOrder("stable 7", name) < share).length;
      // Four standard deviations: a fair order is outside of it once in 15,000 times.
      const deviation = Math.sqrt(MANY.length * share * (1 - share));
      expect(Math.abs(first - share * MANY.length)).toBeLessThan(4 * deviation);
    }
  });

  test("is another one for each release, and each has a salt of its own", () => {
    const early = (salt: string) => MANY.filter((name) => placeInOrder(salt, name) < 0.1);
    const both = early("stable 7").filter((name) => early("stable 8").includes(name));
    expect(both.length).toBeLessThan(0.3 * early("stable 7").length);
    const release = { channel: "stable", sequence: 7 };
    expect(newSalt(release)).toBe("stable 7");
    expect(newSalt({ ...release, epoch: { number: 2, reason: "lost" } })).toBe("stable 2.7");
  });
});

describe("the turn of a host", () => {
  test("is the start where there are no waves", () => {
    expect(turnHours(rollout(), "web1")).toBe(0);
  });

  test("is that of the first wave that has it, by name, by group or by share", () => {
    const policy = rollout({
      waves: [
        { hosts: ["web1"], groups: ["canary"], after: "0s" },
        { groups: ["staging"], after: "1h" },
        { share: 1, after: "2h" },
      ],
    });
    expect(turnHours(policy, "web1")).toBe(0);
    expect(turnHours(policy, "web2", ["canary", "staging"])).toBe(0);
    expect(turnHours(policy, "web2", ["staging"])).toBe(1);
    expect(turnHours(policy, "web2")).toBe(2);
  });

  test("is that of a wave of several groups if the host is in one of them", () => {
    const waves = [{ groups: ["canary", "staging"], after: "1h" }];
    expect(turnHours(rollout({ waves }), "web1", ["staging", "web"])).toBe(1);
    expect(turnHours(rollout({ waves }), "web1", ["web"])).toBeNull();
    expect(turnHours(rollout({ waves }), "web1", [])).toBeNull();
  });

  test("does not come where no wave has it", () => {
    const waves = [{ hosts: ["web1"], after: "0s" }];
    expect(turnHours(rollout({ waves }), "web2")).toBeNull();
  });

  test("is spread evenly over those that a wave adds", () => {
    const policy = rollout({
      waves: [
        { share: 0.5, after: "0s" },
        { share: 1, after: "10h", over: "10h" },
      ],
    });
    const turns = MANY.map((name) => turnHours(policy, name) ?? Infinity);
    const come = (hours: number): number =>
      turns.filter((turn) => turn <= hours).length / MANY.length;
    expect(come(0)).toBeGreaterThan(0.45);
    expect(come(9.9)).toBe(come(0));
    expect(come(15)).toBeGreaterThan(0.7);
    expect(come(15)).toBeLessThan(0.8);
    expect(come(20)).toBe(1);
  });
});

/** Any rollout that the format allows. */
const anyRollout: fc.Arbitrary<Rollout> = fc
  .record({
    salt: fc.stringMatching(/^[a-z0-9 ]{1,10}$/),
    canary: fc.boolean(),
    waves: fc.uniqueArray(
      fc.record({
        share: fc.integer({ min: 1, max: 100 }),
        after: fc.nat(100),
        over: fc.option(fc.nat(50), { nil: undefined }),
      }),
      { selector: ({ share }) => share, maxLength: 5, minLength: 1 },
    ),
  })
  .map(({ salt, canary, waves }) => {
    const afters = waves.map(({ after }) => after).sort((a, b) => a - b);
    const ordered = waves
      .sort((a, b) => a.share - b.share)
      .map(({ share, over }, index) => ({
        share: share / 100,
        after: `${afters[index]}h`,
        ...(over !== undefined && { over: `${over}h` }),
      }));
    const first = canary ? [{ hosts: ["canary1"], after: "0s" }] : [];
    return rollout({ salt, waves: [...first, ...ordered] });
  });

const anyHost = fc.nat(10_000).map((at) => `web${at}`);

describe("whatever the waves are", () => {
  test("a manifest may have them", () => {
    fc.assert(
      fc.property(anyRollout, (policy) => {
        const parsed = manifestSchema.safeParse(sampleManifest({ rollout: policy }));
        expect(parsed.error?.issues).toBeUndefined();
      }),
    );
  });

  test("canaries go first", () => {
    fc.assert(
      fc.property(anyRollout, anyHost, (policy, hostname) => {
        fc.pre(policy.waves?.[0]?.hosts !== undefined);
        const first = turnOf(policy, "canary1") ?? Infinity;
        expect(first).toBeLessThanOrEqual(turnOf(policy, hostname) ?? Infinity);
      }),
    );
  });

  test("once a turn has come it stays, and `until` says when that is to the millisecond", () => {
    fc.assert(
      fc.property(anyRollout, anyHost, fc.nat(200), (policy, hostname, hours) => {
        const createdAt = START;
        const manifest = sampleManifest({
          createdAt,
          rollout: policy,
          hosts: { [hostname]: sampleHost() },
        });
        const waiting = waits(manifest, at(hours), hostname);
        if (waiting.length === 0) {
          expect(waits(manifest, at(hours + 1), hostname)).toEqual([]);
          return;
        }
        const end = endOf(waiting);
        if (end === null) {
          expect(turnOf(policy, hostname)).toBeNull();
          return;
        }
        expect(waits(manifest, new Date(Date.parse(end) - 1), hostname)).not.toEqual([]);
        expect(waits(manifest, new Date(end), hostname)).toEqual([]);
      }),
    );
  });

  test("a host whose clock is wrong is early by no more than that", () => {
    fc.assert(
      fc.property(anyRollout, anyHost, fc.nat(200), fc.nat(50), (policy, host, hours, error) => {
        const manifest = sampleManifest({
          createdAt: START,
          rollout: policy,
          hosts: { [host]: sampleHost() },
        });
        fc.pre(waits(manifest, at(hours + error), host).length === 0);
        expect(turnOf(policy, host)).toBeLessThanOrEqual(at(hours).getTime() + error * HOUR);
      }),
    );
  });

  test("a share of the hosts goes by the end of its wave, whichever release it is", () => {
    fc.assert(
      fc.property(
        fc.stringMatching(/^[a-z ]{1,20}$/),
        fc.integer({ min: 5, max: 95 }),
        (salt, p) => {
          const policy = rollout({
            salt,
            waves: [
              { share: p / 100, after: "0s", over: "10h" },
              { share: 1, after: "20h" },
            ],
          });
          const early = MANY.filter((name) => turnHours(policy, name)! <= 10).length;
          const deviation = Math.sqrt(MANY.length * (p / 100) * (1 - p / 100));
          expect(Math.abs(early - (p / 100) * MANY.length)).toBeLessThan(6 * deviation);
        },
      ),
      { numRuns: 20 },
    );
  });

  test("resumed, it goes on where it was paused", () => {
    fc.assert(
      fc.property(anyRollout, anyHost, fc.nat(200), fc.nat(200), (policy, host, since, pause) => {
        const paused = { reason: "looking", since: at(since).toISOString() };
        const now = at(since + pause);
        const resumed = resumeRollout({ ...policy, paused }, now);
        expect(resumed.paused).toBeUndefined();
        const before = turnOf(policy, host);
        const after = turnOf(resumed, host);
        if (before === null || after === null) {
          expect(after).toBe(before);
          return;
        }
        expect(after <= now.getTime()).toBe(before <= at(since).getTime());
        expect(after - before).toBe(pause * HOUR);
      }),
    );
  });
});

test("a rollout that is not paused is resumed as it is", () => {
  const policy = rollout();
  expect(resumeRollout(policy, at(5))).toBe(policy);
});

test("a rollout that was paused before it began starts at its time, or now where that is past", () => {
  const paused = { reason: "not yet", since: at(-10).toISOString() };
  expect(resumeRollout(rollout({ paused }), at(-5)).start).toBe(START);
  expect(resumeRollout(rollout({ paused }), at(5)).start).toBe(at(5).toISOString());
});

describe("what a release waits for", () => {
  const everyone = sampleManifest({ createdAt: at(-1).toISOString() });

  test("is nothing where there is no rollout, nor for a host that it does not name", () => {
    expect(waits(everyone, at(0))).toEqual([]);
    expect(waits({ ...everyone, rollout: rollout() }, at(-1), "constructor")).toEqual([]);
  });

  test("its start, up to the millisecond", () => {
    const manifest = { ...everyone, rollout: rollout() };
    expect(waits(manifest, new Date(Date.parse(START) - 1))).toEqual([
      {
        reason: "NOT_BEFORE",
        message: `it starts at ${START}`,
        until: START,
        binds: "everyone",
        allowsFetch: true,
      },
    ]);
    expect(waits(manifest, at(0))).toEqual([]);
  });

  test("the host's turn, and before the start both", () => {
    const waves = [{ share: 1, after: "2h" }];
    const manifest = { ...everyone, rollout: rollout({ waves }) };
    expect(waits(manifest, at(1))).toMatchObject([
      {
        ...{ reason: "ROLLOUT_PENDING", until: at(2).toISOString(), allowsFetch: false },
        message: `this host's turn comes at ${at(2).toISOString()}`,
      },
    ]);
    expect(reasons(manifest, at(-1))).toEqual(["NOT_BEFORE", "ROLLOUT_PENDING"]);
    expect(endOf(waits(manifest, at(-1)))).toBe(at(2).toISOString());
  });

  test("somebody, where no wave has the host", () => {
    const waves = [{ hosts: ["web2"], after: "0s" }];
    const manifest = { ...everyone, rollout: rollout({ waves }) };
    expect(waits(manifest, at(1_000))).toMatchObject([
      {
        ...{ reason: "ROLLOUT_PENDING", until: null },
        message: "no wave of its rollout has this host yet",
      },
    ]);
  });

  test("the end of a pause, whoever may go now", () => {
    const paused = { reason: "disks fill up", since: START };
    const hosts = { web1: sampleHost({ turn: "now" }) };
    const manifest = { ...everyone, hosts, rollout: rollout({ paused }) };
    expect(waits(manifest, at(1))).toMatchObject([
      {
        reason: "ROLLOUT_PAUSED",
        message: `its rollout is paused since ${START}: disks fill up`,
        until: null,
      },
    ]);
  });

  test("a host that may go now waits for neither start nor turn; one that is held waits always", () => {
    const policy = rollout({ waves: [{ share: 1, after: "2h" }] });
    const hosts = {
      web1: sampleHost({ turn: "now" }),
      web2: sampleHost({ turn: { held: "being repaired" } }),
    };
    expect(waits({ ...everyone, hosts, rollout: policy }, at(-1))).toEqual([]);
    expect(waits({ ...everyone, hosts }, at(1_000), "web2")).toMatchObject([
      { reason: "ROLLOUT_PAUSED", message: "it holds this host back: being repaired", until: null },
    ]);
  });

  test("an earlier release that it cannot get, beside its turn", () => {
    const { toplevel } = sampleHost();
    const committed = {
      ...{ channel: "stable", sequence: 3, digest: "0".repeat(64), toplevel },
      ...{ mode: "switch" as const, at: START, previous: null },
    };
    const manifest = { ...everyone, rollout: rollout(), barrier: { sequence: 5 } };
    const found = rolloutWaits(manifest, "web1", { ...EMPTY_RECORD, committed }, at(-1));
    expect(found.map(({ reason }) => reason)).toEqual(["NOT_BEFORE", "BARRIER_AHEAD"]);
    expect(found[1]).toMatchObject({ until: null, binds: "everyone", allowsFetch: false });
    expect(found[1]?.message).toContain("has to become release 5 first");
  });

  test("a clock that is behind what the release proves does not hold it back", () => {
    const manifest = { ...everyone, createdAt: at(3).toISOString(), rollout: rollout() };
    expect(waits(manifest, new Date(0))).toEqual([]);
  });
});
