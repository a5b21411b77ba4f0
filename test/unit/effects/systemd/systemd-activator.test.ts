import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { systemdActivator } from "../../../../agent/effects/systemd/systemd-activator.ts";
import { pathWith } from "../../../support/program-path.ts";
import { silentLog } from "../../../../agent/effects/host/log.ts";
import { sampleSettings } from "../../../support/sample-settings.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const PATH = process.env["PATH"] ?? "";
const EXITED = [
  ...["LoadState=loaded", "ActiveState=active", "SubState=exited", "Result=success"],
  ...["ExecMainCode=1", "ExecMainStatus=0", "InvocationID=a1b2"],
];

/** What `systemctl show` answers to the first question about a switch that was started, and after. */
async function systemd(first: readonly string[]): Promise<void> {
  const asked = join(await temporaryDirectory(), "asked");
  const lines = (answer: readonly string[]): string => `printf '%s\\n' ${answer.join(" ")}`;
  const systemctl = `case "$*" in
    *InvocationID*) if [ -e ${asked} ]; then ${lines(EXITED)}; else touch ${asked}; ${lines(first)}; fi;;
    *) exit 0;;
  esac`;
  const journalctl = `case "$*" in *a1b2*) echo "switching" ;; esac`;
  const programs = { systemctl, journalctl, "systemd-run": "exit 0" };
  vi.stubEnv("PATH", `${await pathWith([], programs)}:${PATH}`);
}

test("a switch whose start still waits as a job has not ended", async () => {
  await systemd(["LoadState=loaded", "ActiveState=inactive", "SubState=dead", "Job=71"]);
  const result = await systemdActivator(sampleSettings(), silentLog).activate("/system", "test");
  expect(result).toMatchObject({ exitCode: 0, lastLines: ["switching"] });
});

test("a switch whose unit is gone has ended, nobody knows how", async () => {
  await systemd(["LoadState=not-found", "ActiveState=inactive", "SubState=dead"]);
  const result = await systemdActivator(sampleSettings(), silentLog).activate("/system", "test");
  expect(result).toMatchObject({ exitCode: null, lastLines: [] });
});
