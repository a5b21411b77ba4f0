import { expect, test } from "vitest";
import { describeReport } from "../../../../agent/cli/display/report.ts";
import { sampleReport, sampleToplevel } from "../../../support/sample-fleet.ts";

const AT = "2026-11-24T12:00:00.000Z";

test("a report names drift, a hold, waits, a reboot and the last failure", () => {
  const whole = describeReport(sampleReport("web1"));
  expect(whole).not.toMatch(/^(drift|hold|waits|reboot|failed)/m);
  const found = sampleToplevel("b");
  const text = describeReport(
    sampleReport("web1", {
      drift: { what: "running", expected: sampleToplevel("a"), found },
      hold: { at: AT, until: null, reason: "an audit" },
      waits: [{ reason: "HELD", message: "this host is held", until: null }],
      pendingReboot: { sequence: 12, message: "a boot is left", policy: "never", requested: 0 },
      failure: {
        ...{ at: AT, sequence: 11, toplevel: null, code: "HEALTH_FAILED" },
        ...{ message: "nginx failed", lastLines: [] },
      },
    }),
  );
  expect(text).toMatch(/^wrong +nothing$/m);
  expect(text).toMatch(new RegExp(`^drift +${found} runs and not `, "m"));
  expect(text).toMatch(/^hold +held since 2026-11-24T12:00:00.000Z: an audit$/m);
  expect(text).toMatch(/^waits +HELD: this host is held$/m);
  expect(text).toMatch(/^reboot +a boot is left; policy never$/m);
  expect(text).toMatch(/^failed +release 11 at 2026-11-24T12:00:00.000Z: HEALTH_FAILED: nginx/m);
});
