import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { HostKeys } from "../../../../agent/core/fleet/report-trust.ts";
import { bringReports } from "../../../../agent/operator/mirror/stick-reports.ts";
import { FLEET_NOW, hostKeyOf, sampleReport, sealedReport } from "../../../support/sample-fleet.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const KEYS: HostKeys = new Map(
  ["web1", "web2"].map((hostname) => [hostname, [hostKeyOf(hostname).publicKey]]),
);

test("a link among the reports is refused, and keeps no other report back", async () => {
  const [stick, mirror, elsewhere] = [
    await temporaryDirectory(),
    await temporaryDirectory(),
    await temporaryDirectory(),
  ];
  await mkdir(join(stick, "reports"));
  const good = sealedReport(sampleReport("web2"));
  await writeFile(join(elsewhere, "web1.json"), sealedReport(sampleReport("web1")));
  await symlink(join(elsewhere, "web1.json"), join(stick, "reports/web1.json"));
  await writeFile(join(stick, "reports/web2.json"), good);

  const result = await bringReports(stick, mirror, { keys: KEYS, now: FLEET_NOW, dryRun: false });

  expect(result).toMatchObject({
    brought: ["web2"],
    refused: [{ file: join(stick, "reports/web1.json"), code: "UNSAFE_FILE" }],
  });
  expect(result.refused[0]?.message).toContain("found a symbolic link");
  expect(await readFile(join(mirror, "reports/web2.json"), "utf8")).toBe(good);
});

test("a report from the future that lies in the mirror gives way to a later one of now", async () => {
  const [stick, mirror] = [await temporaryDirectory(), await temporaryDirectory()];
  const at = (ms: number) => ({ at: new Date(FLEET_NOW.getTime() + ms).toISOString() });
  const sealed = (ms: number) => sealedReport({ ...sampleReport("web1"), ...at(ms) });
  const now = sealed(0);
  await mkdir(join(stick, "reports"));
  await mkdir(join(mirror, "reports"));
  await writeFile(join(stick, "reports/web1.json"), now);
  await writeFile(join(mirror, "reports/web1.json"), sealed(60 * 24 * 3_600_000));

  const bring = () => bringReports(stick, mirror, { keys: KEYS, now: FLEET_NOW, dryRun: false });
  expect(await bring()).toMatchObject({ brought: ["web1"], known: [] });
  expect(await readFile(join(mirror, "reports/web1.json"), "utf8")).toBe(now);
  expect(await bring()).toMatchObject({ brought: [], known: ["web1"] });
});
