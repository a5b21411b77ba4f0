import { expect, test } from "vitest";
import { createReleasedHost, oneshot, service } from "./released-host.ts";
import { REAL_SWITCH, type ToplevelOptions } from "./toplevel.ts";

/**
 * Real systems for the table of exit codes, which test/unit/host/scenarios/exit-table.test.ts
 * has whole: each code × before or after the activation script × a unit that was sick before, or
 * none × the mode. One host takes the releases of one column, one after the other.
 */

interface Row {
  readonly what: string;
  readonly system: ToplevelOptions;
  /** Why it is gone back, with `activation.attempts = 1`. */
  readonly code: string;
  /** Whether something else may be to blame: then it waits for another release, and is not denied. */
  readonly isUnblamed?: boolean;
}

/** A program that ends with this code at a moment of its run. */
function dies(at: NonNullable<ToplevelOptions["switchDiesAt"]>, code: number): ToplevelOptions {
  return { switchDiesAt: at, switchDiesWith: code };
}

const BAD = { "bad.service": oneshot("exit 3") };

const ROWS: readonly Row[] = [
  {
    what: "1 before anything is stopped",
    system: dies("started", 1),
    code: "ACTIVATION_FAILED",
  },
  {
    what: "11 after units were stopped",
    system: dies("stopped", 11),
    code: "ACTIVATION_INTERRUPTED",
    isUnblamed: true,
  },
  {
    what: "101 after units were stopped",
    system: dies("stopped", 101),
    code: "ACTIVATION_FAILED",
  },
  {
    what: "1 after the activation script",
    system: dies("activated", 1),
    code: "ACTIVATION_FAILED",
  },
  {
    what: "2 because a snippet fails, or 4 over it",
    system: { activateFails: true },
    code: "ACTIVATION_FAILED",
  },
  {
    what: "4 because a unit of the release fails",
    system: { units: BAD },
    code: "HEALTH_FAILED",
  },
  {
    what: "101 after units were restarted",
    system: dies("restarted", 101),
    code: "ACTIVATION_FAILED",
  },
];

const COLUMNS = (["switch", "test"] as const).flatMap((mode) =>
  [false, true].map((isSick) => ({ mode, isSick })),
);

// A real program ends so only where it has to.
test.skipIf(REAL_SWITCH !== undefined).each(COLUMNS)(
  "in mode $mode, sick before: $isSick, no exit code leaves a half-done system or bars the next one",
  async ({ mode, isSick }) => {
    const sick = isSick ? { "sick.service": oneshot("exit 3") } : {};
    const host = await createReleasedHost({
      first: { units: { "web.service": service("1"), ...sick } },
      settings: { activation: { mode, attempts: 1, timeout: "20s" } },
    });
    const denied: string[] = [];
    for (const [at, { what, system, code, isUnblamed = false }] of ROWS.entries()) {
      const { units = {}, ...others } = system;
      const toplevel = await host.release({
        ...{ generation: String(at + 2), ...others },
        units: { "web.service": service("2"), ...sick, ...units },
      });
      if (isUnblamed) await host.waitForGivingUp(toplevel);
      else {
        await host.waitForDenial(toplevel);
        denied.push(toplevel);
      }
      const event = isUnblamed ? "ActivationInterrupted" : "ActivationRejected";
      const found = await host.waitForEvent(event, toplevel);
      expect([what, found.code]).toEqual([what, code]);
      expect(await host.end(), what).toMatchObject({
        ...{ running: host.first, bootDefault: host.first, profile: host.first, denied },
        ...{ state: isUnblamed ? "Failed" : "Idle", committed: host.first },
        ...{ rebootPending: false, roots: {} },
      });
      expect((await host.unit("web.service")).activeState, what).toBe("active");
      expect(await host.failedUnits(), what).toEqual(Object.keys(sick));
    }
    const good = await host.release({
      generation: "9",
      units: { "web.service": service("3"), ...sick },
    });
    await host.waitForCommit(good);
    expect(await host.end()).toMatchObject({ running: good, denied });
  },
  10 * 60_000,
);
