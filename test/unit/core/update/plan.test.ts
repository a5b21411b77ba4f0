import { describe, expect, test } from "vitest";
import { EMPTY_RECORD, type AgentRecord } from "../../../../agent/core/update/record.ts";
import type { ActivationMode, Release } from "../../../../agent/core/formats/manifest.ts";
import { decide, type Insistence } from "../../../../agent/core/update/plan.ts";
import type { Observation } from "../../../../agent/core/update/observation.ts";
import type { Wait } from "../../../../agent/core/schedule/waiting.ts";
import { sampleDigest, samplePath, sampleRelease } from "../../../support/sample-release.ts";

const NOW = new Date("2026-02-01T12:00:00.000Z");
const NEW = sampleRelease().toplevel;
const OLD = samplePath("nixos-system-web1-old");
const REASON = { code: "ACTIVATION_FAILED", message: "it failed" } as const;

/** What was committed: the sample release, unless changed. */
function committed(changes: Partial<NonNullable<AgentRecord["committed"]>> = {}): AgentRecord {
  const { channel, sequence, digest, toplevel, mode } = sampleRelease();
  return {
    ...EMPTY_RECORD,
    committed: {
      ...{ channel, sequence, digest, toplevel, mode },
      ...{ at: NOW.toISOString(), previous: OLD, rebootNeeded: false },
      ...changes,
    },
  };
}

const WINDOW: Wait = {
  ...{ reason: "WINDOW_CLOSED", message: "closed", until: "2026-02-02T02:00:00.000Z" },
  ...{ binds: "service", allowsFetch: true },
};
const HELD: Wait = {
  ...{ reason: "HELD", message: "held", until: null, binds: "everyone", allowsFetch: false },
};

const OLDER = { digest: sampleDigest("release 6"), sequence: 6 };

function denied(record: AgentRecord, toplevel = NEW): AgentRecord {
  const entry = { toplevel, sequence: 6, digest: OLDER.digest };
  return { ...record, denied: [{ ...entry, reason: REASON, at: NOW.toISOString() }] };
}

function failed(record: AgentRecord, retryAt: string, release: Partial<Release> = {}): AgentRecord {
  return {
    ...record,
    state: {
      ...{ name: "Failed", release: sampleRelease(release), attempts: 1 },
      ...{ reason: REASON, retryAt },
    },
  };
}

function decision(
  record: AgentRecord,
  mode: ActivationMode,
  host: Observation,
  insistence?: Insistence,
): ReturnType<typeof decide> {
  return decide({
    ...{ record, release: sampleRelease({ mode }), host, now: NOW },
    ...(insistence && { insistence }),
  });
}

function at(profile: string | null, running: string | null): Observation {
  return { profile, running };
}

describe("a release is what the host is already", () => {
  test.each<[string, ActivationMode, Observation]>([
    ["switched to", "switch", at(NEW, NEW)],
    ["the boot default, whatever runs", "boot", at(NEW, OLD)],
    ["the boot default, where it is not known what runs", "boot", at(NEW, null)],
    ["running, whatever the boot default is", "test", at(OLD, NEW)],
    ["running without any profile", "test", at(null, NEW)],
    ["tried dry while it runs", "dry-activate", at(OLD, NEW)],
  ])("%s: it is adopted, and active once that is recorded", (_, mode, host) => {
    expect(decision(EMPTY_RECORD, mode, host)).toEqual({ kind: "adopt" });
    expect(decision(committed(OLDER), mode, host)).toEqual({ kind: "adopt" });
    expect(decision(committed({ mode }), mode, host)).toEqual({ kind: "active" });
  });

  test("but was activated by another mode: it is adopted", () => {
    expect(decision(committed({ mode: "boot" }), "switch", at(NEW, NEW))).toEqual({
      kind: "adopt",
    });
  });

  test("and stays so where what runs cannot be seen, if it was committed", () => {
    expect(decision(committed(), "switch", at(NEW, null))).toEqual({ kind: "active" });
    expect(decision(committed({ mode: "test" }), "test", at(OLD, null))).toEqual({
      kind: "active",
    });
    expect(decision(committed(OLDER), "switch", at(NEW, null))).toEqual({ kind: "adopt" });
  });

  test("after a dry activation, which changes nothing that could be seen", () => {
    const record = committed({ mode: "dry-activate" });
    expect(decision(record, "dry-activate", at(OLD, OLD))).toEqual({ kind: "active" });
    expect(decision(record, "dry-activate", at(null, null))).toEqual({ kind: "active" });
  });

  test("though it is denied, in a wait, or insisted on: there is nothing to do", () => {
    const later = "2026-02-01T13:00:00.000Z";
    const host = at(NEW, NEW);
    expect(decision(denied(committed()), "switch", host)).toEqual({ kind: "active" });
    expect(decision(failed(committed(), later), "switch", host)).toEqual({ kind: "active" });
    expect(decision(committed(), "switch", host, "again")).toEqual({ kind: "active" });
  });
});

describe("a release is an update", () => {
  test.each<[string, ActivationMode, Observation]>([
    ["on an empty host", "switch", at(null, null)],
    ["on a host with another system", "switch", at(OLD, OLD)],
    ["that runs but would not be booted", "switch", at(OLD, NEW)],
    ["that would be booted but does not run", "switch", at(NEW, OLD)],
    ["that would be booted, where it is not known what runs", "switch", at(NEW, null)],
    ["that runs but would not be booted, to boot", "boot", at(OLD, NEW)],
    ["that would be booted but does not run, to test", "test", at(NEW, OLD)],
    ["to test, where it is not known what runs", "test", at(NEW, null)],
    ["that would be booted, to try dry", "dry-activate", at(NEW, OLD)],
    ["to try dry, where it is not known what runs", "dry-activate", at(OLD, null)],
  ])("%s", (_, mode, host) => {
    expect(decision(EMPTY_RECORD, mode, host)).toEqual({ kind: "update" });
    const before = committed({ ...OLDER, toplevel: OLD, mode });
    expect(decision(before, mode, host)).toEqual({ kind: "update" });
  });

  test("where it was only tried dry before and is to be switched to now", () => {
    const record = committed({ ...OLDER, mode: "dry-activate" });
    expect(decision(record, "switch", at(OLD, OLD))).toEqual({ kind: "update" });
  });

  test("again where another system is denied", () => {
    expect(decision(denied(EMPTY_RECORD, OLD), "switch", at(OLD, OLD))).toEqual({ kind: "update" });
  });
});

describe("a release that was committed while the host is something else", () => {
  test.each<[string, ActivationMode, Observation, string | null]>([
    ["boots another system", "switch", at(OLD, NEW), OLD],
    ["has lost its profile", "switch", at(null, NEW), null],
    ["runs another system", "switch", at(NEW, OLD), OLD],
    ["boots another system after a boot", "boot", at(OLD, NEW), OLD],
    ["runs another system after a test", "test", at(NEW, OLD), OLD],
  ])("drifted: it %s", (_, mode, host, found) => {
    expect(decision(committed({ mode }), mode, host)).toEqual({ kind: "drifted", found });
  });

  test("is an update where a person wants it again, and not where they only cannot wait", () => {
    const host = at(OLD, OLD);
    expect(decision(committed(), "switch", host, "again")).toEqual({ kind: "update" });
    expect(decision(committed(), "switch", host, "retry")).toEqual({ kind: "drifted", found: OLD });
  });

  test("is an update where the mode changed since", () => {
    expect(decision(committed({ mode: "boot" }), "switch", at(NEW, OLD))).toEqual({
      kind: "update",
    });
  });
});

describe("where the policy is to revert what was changed by hand", () => {
  const reverted = (
    host: Observation,
    insistence: Insistence = "patient",
    waits: readonly Wait[] = [],
    record = committed(),
  ): ReturnType<typeof decide> =>
    decide({
      ...{ record, release: sampleRelease({ mode: "switch" }), host, now: NOW },
      ...{ insistence, waits, driftPolicy: "revert" },
    });

  test.each<[string, Observation]>([
    ["boots another system", at(OLD, NEW)],
    ["boots and runs another system", at(OLD, OLD)],
    ["was rebooted into another boot default", { ...at(OLD, OLD), booted: OLD }],
    ["has lost its profile", at(null, NEW)],
    ["runs another system for a test", { ...at(NEW, OLD), booted: NEW }],
  ])("the release comes back to a host that %s", (_, host) => {
    expect(reverted(host)).toEqual({ kind: "update" });
    expect(reverted(host, "retry")).toEqual({ kind: "update" });
  });

  test("it waits as any other release does", () => {
    expect(reverted(at(OLD, OLD), "patient", [WINDOW])).toEqual({
      ...{ kind: "waiting", waits: [WINDOW] },
    });
  });

  test("a host that booted another system than its default is left alone", () => {
    const host = { profile: NEW, running: OLD, booted: OLD };
    expect(reverted(host)).toEqual({ kind: "drifted", found: OLD });
    expect(reverted(host, "again")).toEqual({ kind: "update" });
  });

  test("what failed here is not brought back", () => {
    const record = denied(committed());
    expect(reverted(at(OLD, OLD), "patient", [], record).kind).toBe("denied");
  });

  test("a release that fails to come back is tried again later", () => {
    const until = "2026-02-01T13:00:00.000Z";
    const record = failed(committed(), until);
    expect(reverted(at(OLD, OLD), "patient", [], record)).toMatchObject({ kind: "backoff", until });
  });
});

describe("a release that waits", () => {
  const host = at(OLD, OLD);
  const waiting = (insistence: Insistence, ...waits: Wait[]): ReturnType<typeof decide> =>
    decide({
      ...{ record: EMPTY_RECORD, release: sampleRelease(), host, now: NOW, insistence, waits },
    });

  test("waits for everything where only the service wants it", () => {
    expect(waiting("patient", WINDOW, HELD)).toEqual({ kind: "waiting", waits: [WINDOW, HELD] });
  });

  test("waits for a person only for what binds everyone", () => {
    for (const insistence of ["retry", "again"] as const) {
      expect(waiting(insistence, WINDOW)).toEqual({ kind: "update" });
      expect(waiting(insistence, WINDOW, HELD)).toEqual({ kind: "waiting", waits: [HELD] });
    }
  });

  test("is active or denied all the same", () => {
    const of = (record: AgentRecord, now: Observation): string =>
      decide({ record, release: sampleRelease(), host: now, now: NOW, waits: [HELD] }).kind;
    expect(of(committed(), at(NEW, NEW))).toBe("active");
    expect(of(denied(EMPTY_RECORD), host)).toBe("denied");
  });
});

describe("a system that failed here before", () => {
  test("is denied, by whatever release it comes again", () => {
    const host = at(OLD, OLD);
    expect(decision(denied(EMPTY_RECORD), "switch", host)).toEqual({
      kind: "denied",
      reason: REASON,
    });
    expect(decision(denied(committed()), "switch", host)).toEqual({
      kind: "denied",
      reason: REASON,
    });
  });

  test("is tried once more where a person wants it again, and only then", () => {
    const kinds = (["again", "retry", "patient"] as const).map(
      (insistence) => decision(denied(EMPTY_RECORD), "switch", at(OLD, OLD), insistence).kind,
    );
    expect(kinds).toEqual(["update", "denied", "denied"]);
  });
});

describe("a release whose last attempt failed", () => {
  const host = at(OLD, OLD);

  test("waits until the time of the next attempt", () => {
    const until = "2026-02-01T12:00:00.001Z";
    expect(decision(failed(EMPTY_RECORD, until), "switch", host)).toEqual({
      ...{ kind: "backoff", until, reason: REASON },
    });
  });

  test("is tried now if that time is further ahead than any wait: a wrong clock set it", () => {
    const kindAt = (until: string, undone: { undone?: number } = {}): string => {
      const { state, ...record } = failed(EMPTY_RECORD, until);
      if (state.name !== "Failed") throw new Error(state.name);
      const release = sampleRelease({ mode: "switch" });
      return decide({
        ...{ record: { ...record, state: { ...state, ...undone } }, release, host, now: NOW },
        retryMax: 60 * 60_000,
      }).kind;
    };
    expect(kindAt("2026-02-01T13:12:00.000Z")).toBe("backoff");
    expect(kindAt("2026-02-01T13:12:00.001Z")).toBe("update");
    expect(kindAt("2026-02-02T12:00:00.000Z", { undone: 1 })).toBe("backoff");
    expect(kindAt("2026-02-02T12:00:00.001Z", { undone: 1 })).toBe("update");
  });

  test("is tried again from that time on", () => {
    for (const until of ["2026-02-01T12:00:00.000Z", "2026-01-01T00:00:00.000Z"]) {
      expect(decision(failed(EMPTY_RECORD, until), "switch", host)).toEqual({ kind: "update" });
    }
  });

  test("that was tried often enough waits for a person or another release, not for a time", () => {
    const record = failed(EMPTY_RECORD, "2026-01-01T00:00:00.000Z");
    if (record.state.name !== "Failed") throw new Error(record.state.name);
    const tired = { ...record, state: { ...record.state, gaveUp: true } };
    const backoff = { kind: "backoff", until: null, reason: REASON };
    expect(decision(tired, "switch", host)).toEqual(backoff);
    expect(decision(tired, "switch", host, "retry")).toEqual({ kind: "update" });
  });

  test("is tried at once where a person does not wait", () => {
    const record = failed(EMPTY_RECORD, "2026-02-01T13:00:00.000Z");
    const kinds = (["again", "retry", "patient"] as const).map(
      (insistence) => decision(record, "switch", host, insistence).kind,
    );
    expect(kinds).toEqual(["update", "update", "backoff"]);
  });

  test("and that was undone waits as long in another release, but for a time only", () => {
    const until = "2026-02-01T13:00:00.000Z";
    const record = failed(EMPTY_RECORD, until);
    if (record.state.name !== "Failed") throw new Error(record.state.name);
    const release = { ...record.state.release, digest: "e".repeat(64) };
    const undone = { ...record.state, release, undone: 1 };
    const decided = (state: AgentRecord["state"]) => decision({ ...record, state }, "switch", host);
    const backoff = { kind: "backoff", until, reason: REASON };
    expect(decided(undone)).toEqual(backoff);
    expect(decided({ ...undone, gaveUp: true })).toEqual(backoff);
    expect(decided({ ...undone, retryAt: "2026-02-01T12:00:00.000Z" })).toEqual({ kind: "update" });
    expect(decided({ ...undone, release: { ...release, mode: "test" } }).kind).toBe("update");
    expect(decided({ ...undone, undone: 0 }).kind).toBe("update");
  });

  test("does not keep another release waiting", () => {
    const record = failed(EMPTY_RECORD, "2026-02-01T13:00:00.000Z", OLDER);
    expect(decision(record, "switch", host)).toEqual({ kind: "update" });
  });
});

describe("a system that waits for a reboot", () => {
  type Pending = NonNullable<AgentRecord["pendingReboot"]>;
  /** On a host that runs and boots the old system, and committed it. */
  function waiting(
    changes: Partial<Pending>,
    mode: ActivationMode = "switch",
    host = at(OLD, OLD),
  ): string {
    const baseline = {
      ...{ profile: OLD, generation: 1, running: OLD, failedUnits: [], restartedUnits: [] },
    };
    const pendingReboot = {
      ...{ release: sampleRelease(), wayBack: false, baseline, attempts: 0, bootId: "boot" },
      ...{ requested: 0, ...changes },
    };
    const before = committed({ ...OLDER, toplevel: OLD });
    return decision({ ...before, pendingReboot }, mode, host).kind;
  }

  test("for its trial is left to it, although the old one is the boot default", () => {
    expect(waiting({ trial: true })).toBe("active");
    expect(waiting({ trial: true }, "boot")).toBe("active");
  });

  test("is an update if the reboot leads back, to another system, or if only a test is asked", () => {
    expect(waiting({ trial: true, wayBack: true })).toBe("update");
    expect(waiting({ trial: true, release: sampleRelease({ toplevel: OLD }) })).toBe("update");
    expect(waiting({ trial: true }, "test")).toBe("adopt");
    expect(waiting({ trial: true }, "dry-activate")).toBe("update");
  });

  test("as the boot default counts as running, unless the reboot leads back", () => {
    expect(waiting({}, "switch", at(NEW, OLD))).toBe("adopt");
    expect(waiting({ wayBack: true }, "switch", at(NEW, OLD))).toBe("update");
    expect(waiting({}, "switch", at(OLD, OLD))).toBe("update");
    const release = sampleRelease({ toplevel: OLD });
    expect(waiting({ release }, "switch", at(NEW, OLD))).toBe("update");
  });
});
