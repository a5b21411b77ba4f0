import * as z from "zod";
import { check as checkHost, type CheckOutcome } from "../host/check.ts";
import { composeTools } from "../host/compose.ts";
import { describeDrift, driftSchema } from "../core/update/drift.ts";
import { isTrial, recordSchema } from "../core/update/record.ts";
import { reasonSchema } from "../core/update/states.ts";
import { hostnameSchema, type Release } from "../core/formats/manifest.ts";
import type { Settings } from "../core/settings.ts";
import type { FetchPreview } from "../core/ports.ts";
import { EXIT } from "../core/errors.ts";
import { describeHold, holdReadSchema } from "../core/schedule/hold.ts";
import { sanitize } from "../core/text/sanitize.ts";
import { silentLog } from "../effects/host/log.ts";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { jsonOption } from "./options/json.ts";
import { describeFinding, describeVerdict, findingJson, findingShape } from "./display/finding.ts";
import { describeReboot } from "./display/reboot.ts";
import { bootLoaderSchema, rebootPolicySchema } from "../host/report/status-json.ts";
import { describePackages, packageChangeSchema, packageJson } from "./display/difference.ts";
import { countSchema, bytesSchema, printJson } from "./display/json.ts";
import { counted, formatBytes } from "../core/text/quantity.ts";
import { note, printLine } from "./display/output.ts";

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
});

function definition() {
  return hostCommand("check", "say what would happen now, and why not")
    .addOption(jsonOption(checkSchema))
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
  const { preview, error, record, verdicts, drift, hold, bootLoader, calledOff, alarms } = found;
  if (options.json) {
    const { hostname } = settings;
    printJson(checkSchema, {
      ...{ hostname, ...findingJson(found) },
      preview: preview && { ...preview, packages: preview.packages?.map(packageJson) ?? null },
      ...{ state: record.state, pendingReboot: record.pendingReboot },
      ...{ rebootPolicy: settings.reboot.policy, drift, hold, bootLoader },
      ...{ calledOff, alarms: [...alarms] },
    });
  } else {
    for (const { code, message } of alarms) note(`ALARM: ${code}: ${message}`);
    for (const verdict of verdicts) note(`${verdict.mirror}: ${describeVerdict(verdict)}`);
    for (const line of describeState(found)) note(line);
    if (hold.kind !== "none") note(`This host is ${describeHold(hold)}.`);
    if (drift) note(`This host was changed by hand: ${describeDrift(drift)}.`);
    if (bootLoader.cannotTry !== null) {
      note(`A release that needs a boot cannot be tried by one boot: ${bootLoader.cannotTry}.`);
    }
    printLine(describeFinding(found));
    for (const line of describePending(found, settings.reboot.policy)) printLine(line);
    if (preview) {
      printLine(
        `It would bring ${preview.newPaths} of ${counted(preview.paths, "path")}: ` +
          `${formatBytes(preview.downloadBytes)} to download, ${formatBytes(preview.storeBytes)} in the store.`,
      );
      if (preview.collectsGarbage) {
        printLine("The store has no room: garbage would be collected first (generations.collect).");
      }
      for (const line of previewOfPackages(preview)) printLine(`  ${line}`);
      for (const line of describeCommands(found.release)) printLine(line);
    } else if (found.decision?.kind === "update" && error) {
      printLine(`It would fail now: ${error.code}: ${error.message}`);
    }
  }
  if (error) return error.exitCode;
  return options.exitCode && found.decision?.kind === "update" ? EXIT.updateAvailable : EXIT.ok;
}

/** The update that is under way, or the attempt that failed; the decision may say that one itself. */
function describeState({ record, decision }: CheckOutcome): string[] {
  const { state } = record;
  if (state.name === "Idle") return [];
  if (state.name !== "Failed") return [`An update is under way, in ${state.name}.`];
  if (decision?.kind === "backoff") return [];
  const { release, reason } = state;
  return [
    `The last attempt, at release ${release.sequence}, failed: ${reason.code}: ${reason.message}`,
  ];
}

/** The boot that is pending: whom it waits for, or that it would be called off. */
function describePending(
  { record: { pendingReboot }, calledOff }: CheckOutcome,
  policy: Settings["reboot"]["policy"],
): string[] {
  if (!pendingReboot) return [];
  const { sequence, toplevel } = pendingReboot.release;
  if (calledOff !== null) {
    return [`The boot for release ${sequence} would be called off first: ${calledOff}.`];
  }
  return [
    ...(isTrial(pendingReboot) ? [`The next boot tries release ${sequence}: ${toplevel}.`] : []),
    `REBOOT NEEDED: ${describeReboot(pendingReboot, policy)}.`,
  ];
}

/** The packages that an update changes, in lines. */
function previewOfPackages({ packages }: FetchPreview): string[] {
  return packages === null
    ? ["packages: unknown, since the closure of the running system is not known"]
    : describePackages(packages);
}

/** The commands of the release that this host would run as root. */
function describeCommands(release: Release | null): string[] {
  return (release?.checks ?? []).flatMap((check) =>
    check.kind === "command"
      ? [sanitize(`It would run as root: ${check.name}: ${JSON.stringify(check.command)}`, 300_000)]
      : [],
  );
}
