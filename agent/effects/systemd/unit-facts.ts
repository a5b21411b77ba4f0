import type { ClockFacts } from "../../core/doctor/time.ts";
import type { UnitFacts } from "../../core/doctor/units.ts";
import { PullError } from "../../core/errors.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { describeFailure, runProcess } from "../process/subprocess.ts";
import { systemd } from "./systemctl.ts";

const PROPERTIES = "Id,LoadState,ActiveState,SubState,UnitFileState,Result,WatchdogUSec";

/** What systemd says about units, in the order of the names. Throws IO_FAILED, TOOL_TIMEOUT, TOOL_MISSING. */
export async function unitFacts(names: readonly string[]): Promise<UnitFacts[]> {
  const result = await systemd("systemctl", "show", `--property=${PROPERTIES}`, "--", ...names);
  if (result.exitCode !== 0) {
    throw new PullError(result.timedOut ? "TOOL_TIMEOUT" : "IO_FAILED", describeFailure(result));
  }
  const blocks = result.stdout.trim().split("\n\n");
  return names.map((unit, at) => {
    const block = blocks[at] ?? "";
    const value = (name: string): string =>
      new RegExp(`^${name}=(.*)$`, "m").exec(block)?.[1]?.trim() ?? "";
    const watchdog = value("WatchdogUSec");
    return {
      ...{ unit, load: value("LoadState"), active: value("ActiveState"), sub: value("SubState") },
      ...{ file: value("UnitFileState"), result: value("Result") || "success" },
      watchdog: ["", "0", "infinity"].includes(watchdog) ? null : watchdog,
    };
  });
}

/** `timedatectl` asks a service that systemd starts for it. */
const CLOCK_TIMEOUT_MS = 30_000;

/** What systemd says about the clock; null if it says nothing. */
export async function clockFacts(): Promise<ClockFacts | null> {
  const result = await runProcess("timedatectl", ["show"], {
    env: childEnvironment(),
    timeoutMs: CLOCK_TIMEOUT_MS,
  }).catch(() => null);
  if (result?.exitCode !== 0) return null;
  return {
    synchronised: /^NTPSynchronized=yes$/m.test(result.stdout),
    service: /^NTP=yes$/m.test(result.stdout),
  };
}
