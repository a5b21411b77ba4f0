import { expect, test } from "vitest";
import { sealReport } from "../../../agent/core/formats/report.ts";
import { EMPTY_MEMORY } from "../../../agent/fleet/memory.ts";
import { believeReports } from "../../../agent/fleet/read-fleet.ts";
import { hostKeyOf, sampleReport } from "../../support/sample-fleet.ts";

const NOW = new Date("2026-02-01T12:00:00.000Z");
const KEY = hostKeyOf("web1");

/** A report of web1 that says that it was made then. */
function madeAt(at: string) {
  const report = sampleReport("web1", { at, publicKey: KEY.publicKey.text });
  return { hostname: "web1", bytes: Buffer.from(sealReport(report, KEY)) };
}

test("a report by a clock that was ahead hides no later one of the same host", () => {
  const ahead = madeAt("2026-04-01T00:00:00.000Z");
  const right = madeAt("2026-02-01T11:55:00.000Z");
  const keys = new Map([["web1", [KEY.publicKey]]]);
  const trust = { keys, memory: EMPTY_MEMORY, trustNew: false };
  for (const found of [
    [ahead, right],
    [right, ahead],
  ]) {
    const { reports } = believeReports(found, trust, NOW);
    expect(reports.map(({ at }) => at)).toEqual(["2026-02-01T11:55:00.000Z"]);
  }
  expect(believeReports([ahead], trust, NOW).reports).toHaveLength(1);
});
