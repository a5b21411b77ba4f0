import { expect, test } from "vitest";
import { openReport } from "../../../../agent/core/formats/report.ts";
import { handReport } from "../../../../agent/host/report/stick-report.ts";
import { MemoryHost } from "../../../support/memory-host.ts";
import { testKey } from "../../../support/test-key.ts";

const STICKS = ["file:///mnt/a", "file:///mnt/b"];
const REPORTING = { sticks: { reports: true } };

test("every stick gets the same signed report", async () => {
  const host = new MemoryHost({ mirrors: [...STICKS, "https://a.example.org/"], ...REPORTING });
  await handReport(host.tools);
  expect(host.takeCalls()).toEqual(STICKS.map((stick) => `leave report on ${stick}`));
  expect(host.reports[0]).toBe(host.reports[1]);
  const { publicKey } = testKey("host-web1");
  expect(openReport(Buffer.from(host.reports[0] ?? ""), publicKey)).toMatchObject({
    ...{ hostname: "web1", publicKey: publicKey.text },
  });
});

test("a stick that cannot be written is a warning, and the next one is tried", async () => {
  const host = new MemoryHost({ mirrors: STICKS, ...REPORTING });
  host.fault("leave report", "IO_FAILED", "read-only");
  await handReport(host.tools);
  expect(host.takeCalls()).toEqual(["leave report on file:///mnt/b"]);
  expect(host.logged).toEqual([
    "warn: IO_FAILED: file:///mnt/a: the report could not be left there: read-only",
  ]);
});

test("nothing is left if the settings do not want it, and nothing is made without a stick", async () => {
  const silent = new MemoryHost({ mirrors: STICKS });
  await handReport(silent.tools);
  const web = new MemoryHost(REPORTING);
  await handReport(web.tools);
  expect([silent.takeCalls(), web.takeCalls()]).toEqual([[], []]);
});
