import { spawnSync } from "node:child_process";

const found = spawnSync("promtool", ["--version"], { encoding: "utf8" });

/** Prometheus' own checker; `scripts/setup test` installs it. */
export const promtool = { path: "promtool", isThere: found.status === 0 };

// Loudly: what it would check is not checked then.
if (!promtool.isThere) {
  console.warn("SKIPPED: promtool is not installed; run scripts/setup test");
}
