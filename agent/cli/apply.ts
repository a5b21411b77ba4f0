import * as z from "zod";
import { composeTools } from "../host/compose.ts";
import { tick } from "../host/tick.ts";
import { writeMetricsFile } from "../host/report/metrics.ts";
import { handReport } from "../host/report/stick-report.ts";
import { EXIT } from "../core/errors.ts";
import { hostnameSchema } from "../core/formats/manifest.ts";
import { Times } from "../core/text/times.ts";
import { recordSchema } from "../core/update/record.ts";
import { createLog } from "../effects/host/log.ts";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { jsonOption } from "./options/json.ts";
import { describeApply } from "./display/apply.ts";
import { findingJson, findingShape } from "./display/finding.ts";
import { printJson } from "./display/json.ts";
import { DownloadProgress } from "./display/progress.ts";
import { show } from "./display/screen.ts";

/** What `apply --json` prints. */
const applySchema = z.strictObject({
  hostname: hostnameSchema,
  updated: z.boolean().describe("whether the host was switched to the release now"),
  ...findingShape,
  state: recordSchema.shape.state,
  committed: recordSchema.shape.committed,
  pendingReboot: recordSchema.shape.pendingReboot,
});

function definition() {
  return hostCommand("apply", "poll once and apply the release now")
    .addOption(jsonOption(applySchema))
    .option("--again", "also apply what failed here before, or was changed by hand")
    .option("--accept-state-loss", "start with a new state if the state directory is damaged");
}

export const applyCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((options) => {
    finish(apply(options, signal));
  });

/** `nixos-pull apply`: one poll and, if there is something to do, the whole update. */
async function apply(options: OptionsOf<typeof definition>, signal: AbortSignal): CommandResult {
  const settings = await loadSettings(options.config);
  const progress = new DownloadProgress();
  const log = createLog(settings.log, {
    byHand: true,
    write: (text) => {
      progress.clear();
      process.stderr.write(text);
    },
  });
  const tools = composeTools(settings, log, {
    configFile: options.config,
    onProgress: (far) => {
      progress.hear(far);
    },
  });
  const before = await tools.state.recall().then(
    ({ record }) => record,
    () => null,
  );
  const begin = tools.clock.now();
  const outcome = await tick(tools, {
    insistence: options.again ? "again" : "retry",
    acceptStateLoss: options.acceptStateLoss ?? false,
    signal,
  });
  progress.clear();
  await writeMetricsFile(tools);
  await handReport(tools);
  const { updated, error, record } = outcome;
  if (options.json) {
    printJson(applySchema, {
      hostname: settings.hostname,
      updated,
      ...findingJson(outcome),
      state: record.state,
      committed: record.committed,
      pendingReboot: record.pendingReboot,
    });
  } else {
    const times = new Times({ now: tools.clock.now() });
    const lines = describeApply(outcome, { before, begin, times });
    if (lines.length > 0) show(lines, { hang: 2 });
  }
  if (error) {
    if (options.json || outcome.decision?.kind !== "update") return error.exitCode;
    throw error;
  }
  // The command did not do what it was asked.
  switch (outcome.decision?.kind) {
    case "denied":
      return EXIT.activation;
    case "waiting":
      return EXIT.waiting;
    default:
      return EXIT.ok;
  }
}
