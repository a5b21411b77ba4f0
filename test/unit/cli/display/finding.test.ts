import { expect, test } from "vitest";
import { describeCheck } from "../../../../agent/cli/display/check.ts";
import { describeFinding } from "../../../../agent/cli/display/finding.ts";
import { HostWords } from "../../../../agent/cli/display/host-words.ts";
import { plain } from "../../../../agent/cli/display/screen.ts";
import { Times } from "../../../../agent/core/text/times.ts";
import { PullError } from "../../../../agent/core/errors.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { check } from "../../../../agent/host/check.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;
const LOOK = { insistence: "patient", signal: undefined } as const;

/** A finding as a person reads it. */
function described(found: Parameters<typeof describeFinding>[0]): string {
  const words = new HostWords(new Times({ now: new Date() }), []);
  return describeFinding(found, words).map(plain).join("\n");
}

test("what is wrong is said beside a release that is active", async () => {
  const host = new MemoryHost();
  host.publish({ sequence: 1, system: "1" });
  await tick(host.tools, PATIENT);
  const found = await check(host.tools, LOOK);
  expect(described(found)).toBe("Nothing to do: release 1 of stable is active.");
  const error = new PullError("AGENT_TOO_OLD", "release 2 requires more");
  expect(described({ ...found, error })).toBe(
    "AGENT_TOO_OLD: release 2 requires more\nNothing to do: release 1 of stable is active.",
  );
});

/** A host whose next boot tries release 2. */
async function tryingHost(): Promise<MemoryHost> {
  const host = new MemoryHost();
  host.cannotTry = null;
  host.kernels.set(system("2"), "linux 2");
  host.publish({ sequence: 1, system: "1" });
  await tick(host.tools, PATIENT);
  host.publish({ sequence: 2, system: "2", mode: "boot" });
  await tick(host.tools, PATIENT);
  return host;
}

test("a release that the next boot tries is not called active", async () => {
  const host = await tryingHost();
  const found = await check(host.tools, LOOK);
  expect(described(found)).toBe("Nothing to do now: release 2 of stable waits for its boot.");
  expect(found.calledOff).toBeNull();
});

test("a boot into a release that was withdrawn is said to be called off", async () => {
  const host = await tryingHost();
  host.publish({ sequence: 3, system: "1" });
  const { calledOff } = await check(host.tools, LOOK);
  expect(calledOff).toBe("release 3 takes its place");
  expect(host.record?.pendingReboot).not.toBeNull();
});

test("a damaged hold is an alarm of check, too", async () => {
  const host = new MemoryHost();
  host.publish({ sequence: 1, system: "1" });
  host.hold = { kind: "damaged", why: "not JSON" };
  const { alarms } = await check(host.tools, LOOK);
  expect(alarms).toEqual([
    { code: "STATE_CORRUPT", message: "hold: not JSON; the host counts as held" },
  ]);
});

test.each(["STATE_UNKNOWN", "STATE_LOST"] as const)(
  "%s is an alarm of check, in words and in JSON",
  async (code) => {
    const host = new MemoryHost();
    host.publish({ sequence: 1, system: "1" });
    host.stateAlarms.push(new PullError(code, "look at this"));
    const found = await check(host.tools, LOOK);
    expect(found.alarms).toEqual([{ code, message: "look at this" }]);
    const { alarms } = describeCheck(found, new Times({ now: host.time.now() }), "never");
    expect(alarms.map(plain)).toEqual([`ALARM: ${code}: look at this`]);
  },
);

test("what is wrong is said beside an update that would be applied, too", async () => {
  const host = new MemoryHost();
  host.publish({ sequence: 1, system: "2" });
  const found = await check(host.tools, LOOK);
  const error = new PullError("AGENT_TOO_OLD", "release 2 requires more");
  const times = new Times({ now: host.time.now() });
  const { result } = describeCheck({ ...found, error }, times, "never");
  expect(result.map(plain)).toContain("Beside that: AGENT_TOO_OLD: release 2 requires more");
});
