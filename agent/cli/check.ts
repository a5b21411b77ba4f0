import * as z from "zod";
import { check as checkHost } from "../host/check.ts";
import { composeTools } from "../host/compose.ts";
import { activitySchema } from "../host/report/activity.ts";
import { bootLoaderSchema, rebootPolicySchema } from "../host/report/status-json.ts";
import { EXIT } from "../core/errors.ts";
import { hostnameSchema } from "../core/formats/manifest.ts";
import { holdReadSchema } from "../core/schedule/hold.ts";
import { Times } from "../core/text/times.ts";
import { driftSchema } from "../core/update/drift.ts";
import { recordSchema } from "../core/update/record.ts";
import { reasonSchema } from "../core/update/states.ts";
import { silentLog } from "../effects/host/log.ts";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { jsonOption } from "./options/json.ts";
import { utcOption } from "./options/utc.ts";
import { describeCheck } from "./display/check.ts";
import { packageChangeSchema, packageJson } from "./display/difference.ts";
import { findingJson, findingShape } from "./display/finding.ts";
import { countSchema, bytesSchema, printJson } from "./display/json.ts";
import { show, showNote } from "./display/screen.ts";

/** What `check --json` prints. */
const checkSchema = z.strictObject({
  hostname: hostnameSchema,
  ...findingShape,
  preview: z
    .strictObject({
      paths: countSchema,
      newPaths: countSchema,
      downloadBytes: bytesSchema,
      storeBytes: bytesSchema,
      collectsGarbage: z
        .boolean()
        .describe("whether garbage is collected first, since the store has no room"),
      packages: z
        .array(packageChangeSchema)
        .nullable()
        .describe("packages that change from the running system; null if that is not known"),
    })
    .nullable()
    .describe("what the update would bring; null if there is none"),
  state: recordSchema.shape.state,
  pendingReboot: recordSchema.shape.pendingReboot.describe(
    "the reboot that is needed, and for which release; null if none is",
  ),
  rebootPolicy: rebootPolicySchema,
  drift: driftSchema.nullable(),
  hold: holdReadSchema,
  bootLoader: bootLoaderSchema,
  calledOff: z
    .string()
    .nullable()
    .describe("why the pending boot would be called off; null if it would not"),
  alarms: z.array(reasonSchema).describe("what a person should look at, as in `status`"),
  activity: activitySchema,
});

/** A sentence that goes on below itself is seen to be one. */
const LAYOUT = { hang: 2 };

function definition() {
  return hostCommand("check", "say what would happen now, and why not")
    .addOption(jsonOption(checkSchema))
    .addOption(utcOption())
    .option("--exit-code", "exit with 20 if an update would be applied");
}

export const checkCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((options) => {
    finish(check(options, signal));
  });

/** `nixos-pull check`: what would happen now, and why not. */
async function check(options: OptionsOf<typeof definition>, signal: AbortSignal): CommandResult {
  const settings = await loadSettings(options.config);
  const tools = composeTools(settings, silentLog);
  const found = await checkHost(tools, { insistence: "patient", signal });
  const { preview, error, record, drift, hold, bootLoader, calledOff, alarms } = found;
  if (options.json) {
    const { hostname } = settings;
    printJson(checkSchema, {
      ...{ hostname, ...findingJson(found) },
      preview: preview && { ...preview, packages: preview.packages?.map(packageJson) ?? null },
      ...{ state: record.state, pendingReboot: record.pendingReboot },
      ...{ rebootPolicy: settings.reboot.policy, drift, hold, bootLoader },
      ...{ calledOff, alarms: [...alarms], activity: found.activity },
    });
  } else {
    const times = new Times({ now: tools.clock.now(), utc: options.utc });
    const words = describeCheck(found, times, settings.reboot.policy);
    if (words.alarms.length > 0) showNote(words.alarms, LAYOUT);
    show(words.result, LAYOUT);
    if (words.beside.length > 0) showNote(words.beside, LAYOUT);
  }
  if (error) return error.exitCode;
  return options.exitCode && found.decision?.kind === "update" ? EXIT.updateAvailable : EXIT.ok;
}
