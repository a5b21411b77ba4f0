import { about, inOrder, type CheckResult } from "../../core/doctor/result.ts";
import { EMPTY_RECORD } from "../../core/update/record.ts";
import type { AgentTools } from "../agent-tools.ts";
import { judgeRecord, tryFiles, type FileTools } from "./files.ts";
import { tryMirror, type MirrorTools } from "./mirrors.ts";
import { tryRelease, type ReleaseTools } from "./release.ts";
import { trySystem, type SystemTools } from "./system.ts";
import { Trial } from "./trying.ts";

/** What an examination of the whole host takes. */
export type DoctorTools = FileTools &
  MirrorTools &
  ReleaseTools &
  SystemTools &
  Pick<AgentTools, "state">;

/**
 * Tries everything that this host needs for its updates, side by side, each in a bounded time; what
 * fails does not end the others. Changes nothing on the host. Throws INTERRUPTED.
 */
export async function examineHost(
  tools: DoctorTools,
  signal?: AbortSignal,
): Promise<CheckResult[]> {
  const trial = new Trial(tools, signal);
  const parts = await Promise.all([
    tryMirrors(tools, trial),
    ...trySystem(tools, trial),
    ...tryFiles(tools, trial),
  ]);
  const { hostname, channel } = tools.settings;
  const valid = about("configuration.file").passed(`${hostname} follows ${channel}`);
  return inOrder([valid, ...parts.flat()]);
}

/** The record, each mirror by itself, and then what they have for this host. */
async function tryMirrors(tools: DoctorTools, trial: Trial): Promise<readonly CheckResult[]> {
  const recalled = await trial.value(() => tools.state.recall());
  const record = "value" in recalled ? (recalled.value.record ?? EMPTY_RECORD) : null;
  const memories = record?.trust ?? [];
  const judged =
    "value" in recalled
      ? judgeRecord(recalled.value)
      : [trial.failure("files.record", recalled.error)];
  const tried = await Promise.all(
    tools.mirrors.map((mirror) => tryMirror(mirror, memories, tools, trial)),
  );
  const release = await tryRelease(tried, record, tools, trial);
  return [...judged, ...tried.flatMap(({ results }) => results), ...release];
}
