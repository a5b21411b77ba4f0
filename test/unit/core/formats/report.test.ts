import { describe, expect, test } from "vitest";
import { sealEnvelope } from "../../../../agent/core/formats/envelope.ts";
import {
  MAX_FAILURE_LINE,
  MAX_FAILURE_LINES,
  MAX_REPORT_BYTES,
  MAX_REPORT_WAITS,
  openReport,
  parseReport,
  REPORT_PAYLOAD_TYPE,
  reportSchema,
  sealReport,
} from "../../../../agent/core/formats/report.ts";
import { MAX_HOLD_REASON } from "../../../../agent/core/schedule/hold.ts";
import { failureOf } from "../../../support/failure.ts";
import { hostKeyOf, sampleReport, sampleToplevel } from "../../../support/sample-fleet.ts";
import { testKey } from "../../../support/test-key.ts";

const AT = "2026-11-24T12:00:00.000Z";
const LINE = "x".repeat(MAX_FAILURE_LINE);
const LONG = "x".repeat(2001);
const WAIT = { reason: "HELD", message: "held", until: AT } as const;

/** A report with every key that a report may have. */
const FULL = {
  ...sampleReport("web1"),
  waits: [WAIT],
  hold: { at: AT, until: AT, reason: "a party" },
  drift: { what: "profile", expected: sampleToplevel("a"), found: null },
  publicKey: "host-web1:AAAA",
  pendingReboot: { sequence: 12, message: "a reboot", policy: "window", requested: 0 },
  failure: {
    ...{ at: AT, sequence: 12, toplevel: sampleToplevel("a"), code: "ACTIVATION_FAILED" },
    ...{ message: "exit code 4", lastLines: ["bad"] },
  },
} as const;

type Path = string;

/** FULL with another value at a path such as `release.sequence`; undefined removes the key. */
function changed(path: Path, value: unknown): unknown {
  const copy = structuredClone(FULL) as Record<string, unknown>;
  const names = path.split(".");
  const last = names.pop() ?? "";
  let parent = copy;
  for (const name of names) parent = parent[name] as Record<string, unknown>;
  if (value === undefined) Reflect.deleteProperty(parent, last);
  else parent[last] = value;
  return copy;
}

const accepts = (path: Path, value: unknown): boolean =>
  reportSchema.safeParse(changed(path, value)).success;

describe("a report", () => {
  test("is read as it was sealed, with its host's key alone", () => {
    const report = sampleReport("web1");
    const key = hostKeyOf("web1");
    const bytes = Buffer.from(sealReport(report, key));
    expect(openReport(bytes, key.publicKey)).toEqual(report);
    expect(failureOf(() => openReport(bytes, testKey("other").publicKey)).code).toBe(
      "SIGNATURE_THRESHOLD",
    );
  });

  test("is never taken for a release, nor the other way round", () => {
    const key = hostKeyOf("web1");
    const payload = Buffer.from(JSON.stringify(sampleReport("web1")));
    const release = Buffer.from(sealEnvelope(payload, [key]));
    expect(failureOf(() => openReport(release, key.publicKey)).code).toBe("PAYLOAD_TYPE_WRONG");
    expect(REPORT_PAYLOAD_TYPE).toBe("application/vnd.nixos-pull.report+json");
  });

  test("is read up to a length that leaves room beyond the longest of ours", () => {
    expect(MAX_REPORT_BYTES).toBe(65_536);
  });

  test("that is no JSON, or none of ours, is REPORT_INVALID", () => {
    const noJson = failureOf(() => parseReport(Buffer.from("{")));
    expect(noJson).toMatchObject({ code: "REPORT_INVALID", message: "the report is not JSON" });
    expect(noJson.cause).toBeInstanceOf(SyntaxError);
    const other = { ...sampleReport("web1"), hostname: 7 };
    expect(failureOf(() => parseReport(Buffer.from(JSON.stringify(other))))).toMatchObject({
      ...{ code: "REPORT_INVALID", message: "hostname: expected string, found 7" },
    });
  });

  test("may have each of these keys, and no other at any place", () => {
    expect(reportSchema.parse(FULL)).toEqual(FULL);
    for (const place of ["", "release.", "accepted.", "hold.", "lastPoll.", "pendingReboot."]) {
      expect(accepts(`${place}more`, 1), place).toBe(false);
    }
    for (const place of ["failure.", "disk.", "drift."]) {
      expect(accepts(`${place}more`, 1), place).toBe(false);
    }
    expect(accepts("waits", [{ ...WAIT, more: 1 }])).toBe(false);
  });

  test.each([
    ...["waits", "hold", "drift", "publicKey", "lastPoll", "pendingReboot", "failure", "disk"],
    "release.committedAt",
  ])("may lack %s", (path) => {
    expect(accepts(path, undefined)).toBe(true);
  });

  test.each([
    ...["formatVersion", "hostname", "machineId", "at", "channel", "release", "accepted"],
    ...["state", "code", "message", "profile", "running", "booted", "agentVersion"],
    ...["release.sequence", "release.digest", "release.toplevel", "release.rebootNeeded"],
    ...["accepted.epoch", "accepted.sequence", "accepted.digest", "disk.free", "disk.total"],
    ...["hold.at", "hold.until", "hold.reason", "lastPoll.at", "lastPoll.decision"],
    ...["lastPoll.sequence", "pendingReboot.sequence", "pendingReboot.message"],
    ...["pendingReboot.policy", "pendingReboot.requested", "failure.at", "failure.sequence"],
    ...["failure.toplevel", "failure.code", "failure.message", "failure.lastLines"],
  ])("may not lack %s", (path) => {
    expect(accepts(path, undefined)).toBe(false);
  });

  test.each([
    ...["machineId", "release", "accepted", "code", "message", "profile", "running", "booted"],
    ...["hold.at", "hold.until", "hold.reason", "lastPoll.decision", "lastPoll.sequence"],
    ...["failure.sequence", "failure.toplevel", "failure.code", "failure.message"],
  ])("may not know %s: null", (path) => {
    expect(accepts(path, null)).toBe(true);
  });

  test.each([
    ...["formatVersion", "hostname", "at", "channel", "state", "agentVersion", "waits", "hold"],
    ...["release.sequence", "accepted.epoch", "lastPoll.at", "pendingReboot.requested"],
    ...["failure.at", "failure.lastLines", "disk.free"],
  ])("always knows %s", (path) => {
    expect(accepts(path, null)).toBe(false);
  });

  test.each<[Path, readonly unknown[], readonly unknown[]]>([
    ["formatVersion", [1, 2], [0, "1"]],
    ["at", [AT], ["yesterday", "2026-11-24"]],
    ["release.sequence", [1], [0, -1, 1.5]],
    ["release.committedAt", [AT], ["soon"]],
    ["release.rebootNeeded", [true, false], [1]],
    ["accepted.epoch", [0, 3], [-1, 0.5]],
    ["accepted.sequence", [1], [0]],
    ["state", ["x".repeat(50)], ["x".repeat(51)]],
    ["code", ["DISK_FULL", "CODE_OF_ANOTHER_VERSION"], [7, "x".repeat(101)]],
    ["message", ["x".repeat(2000)], ["x".repeat(2001)]],
    ["agentVersion", ["x".repeat(50)], ["x".repeat(51)]],
    ["publicKey", ["x".repeat(400)], ["x".repeat(401)]],
    ["hold.reason", ["x".repeat(MAX_HOLD_REASON)], ["x".repeat(MAX_HOLD_REASON + 1)]],
    ["hold.at", [AT], ["now"]],
    ["hold.until", [AT], ["later"]],
    ["lastPoll.at", [AT], ["now"]],
    ["lastPoll.decision", ["x".repeat(50)], ["x".repeat(51)]],
    ["lastPoll.sequence", [1], [0]],
    ["pendingReboot.sequence", [1], [0]],
    ["pendingReboot.message", ["x".repeat(2000)], ["x".repeat(2001)]],
    ["pendingReboot.policy", ["never", "window", "now", "soon"], [7, "x".repeat(101)]],
    ["pendingReboot.requested", [0, 5], [-1, 0.5]],
    ["failure.at", [AT], ["now"]],
    ["failure.sequence", [1], [0]],
    ["failure.code", ["HOOK_FAILED", "x"], [7, "x".repeat(101)]],
    ["failure.message", ["x".repeat(2000)], ["x".repeat(2001)]],
    ["failure.lastLines", [[], Array(MAX_FAILURE_LINES).fill(LINE)], [[`${LINE}x`], [7]]],
    ["failure.lastLines", [["x"]], [Array(MAX_FAILURE_LINES + 1).fill("x")]],
    ["disk.free", [0, 5], [-1, 0.5]],
    ["disk.total", [0, 5], [-1, 0.5]],
    ["waits", [[], Array(MAX_REPORT_WAITS).fill(WAIT)], [Array(MAX_REPORT_WAITS + 1).fill(WAIT)]],
    ["waits", [[{ ...WAIT, until: null }]], [[{ ...WAIT, until: "later" }]]],
    ["waits", [[{ ...WAIT, reason: "TIRED" }]], [[{ ...WAIT, reason: 7 }]]],
    ["waits", [[{ ...WAIT, message: "x".repeat(2000) }]], [[{ ...WAIT, message: LONG }]]],
  ])("%s is bounded", (path, good, bad) => {
    for (const value of good) expect(accepts(path, value), JSON.stringify(value)).toBe(true);
    for (const value of bad) expect(accepts(path, value), JSON.stringify(value)).toBe(false);
  });
});
