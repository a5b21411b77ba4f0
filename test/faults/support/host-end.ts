import { expect } from "vitest";
import { ERROR_CODES } from "../../../agent/core/errors.ts";
import type { Answer } from "../../support/answer.ts";
import { snapshotOf } from "../../support/host-snapshot.ts";
import type { CommandOutput } from "../../support/nixos-pull.ts";
import type { ReleaseSeries } from "../../support/release-series.ts";
import type { SandboxHost } from "../../support/sandbox.ts";

/** After so many applies without any fault a host is what the release says. */
const MAX_APPLIES = 2;

/** The code that a command ended with, or "exit 0"; null if it said none. */
export function codeOf({ exitCode, stdout, stderr }: CommandOutput): string | null {
  if (exitCode === 0) return "exit 0";
  try {
    return (JSON.parse(stdout) as Answer).error?.code ?? null;
  } catch {
    return ERROR_CODES.find((code) => stderr.includes(`${code}: `)) ?? null;
  }
}

/** Right after a fault: the old system or the new one, and nothing that `status` cannot read. */
export async function expectWhole(host: SandboxHost, series: ReleaseSeries): Promise<void> {
  const { 1: old, 2: next } = series.toplevels;
  const { profile, running, roots } = await snapshotOf(host);
  expect([old, next]).toContain(profile);
  expect([old, next]).toContain(running);
  for (const root of Object.values(roots)) expect([old, next]).toContain(root);
  const status = await host.run("status");
  expect(status.exitCode, status.stderr).toBe(0);
}

/**
 * Without the fault the host takes release 2. A system whose own activation script met the fault
 * is denied as any other that fails, and is asked for `--again`.
 */
export async function expectConvergence(host: SandboxHost, series: ReleaseSeries): Promise<void> {
  let said = "";
  for (let applies = 0; applies < MAX_APPLIES; applies++) {
    const isDenied = said.includes("RELEASE_DENIED");
    const { exitCode, stderr } = await host.run("apply", ...(isDenied ? ["--again"] : []));
    said = stderr;
    if (exitCode === 0) break;
  }
  expect(await host.profileToplevel(), said).toBe(series.toplevels[2]);
  const { running } = await snapshotOf(host);
  expect(running).toBe(series.toplevels[2]);
  const { exitCode, value } = await host.json("check");
  expect([exitCode, (value as { decision?: string }).decision], said).toEqual([0, "active"]);
  expect(await host.stagingIsClean()).toBe(true);
}
