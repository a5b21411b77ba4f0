import * as z from "zod";
import { composeTools } from "../host/compose.ts";
import { NEEDS, repairStore, type DamagedPath, type RepairOutcome } from "../host/repair.ts";
import { EXIT } from "../core/errors.ts";
import { hostnameSchema } from "../core/formats/manifest.ts";
import { storePathSchema } from "../core/formats/store-path.ts";
import { createLog } from "../effects/host/log.ts";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { jsonOption } from "./options/json.ts";
import { countSchema, errorJson, errorSchema, printJson } from "./display/json.ts";
import { counted } from "../core/text/quantity.ts";
import { note, printLine } from "./display/output.ts";

/** What `repair --json` prints. */
const repairSchema = z.strictObject({
  hostname: hostnameSchema,
  dryRun: z.boolean(),
  verified: countSchema.describe("store paths that were compared with their hashes"),
  damaged: z.array(
    z.strictObject({
      path: storePathSchema,
      kind: z.enum(["damaged", "missing"]).describe("missing: Nix does not know it any more"),
      inUse: z.boolean().describe("whether it belongs to the running or the booted system"),
      neededBy: z.array(z.enum(NEEDS)).describe("which systems of this host have it"),
      repaired: z.boolean(),
      files: z
        .array(z.string())
        .describe("what was not as it must be, below the path, as far as the repair saw it"),
    }),
  ),
  error: errorSchema.nullable().describe("null if nothing is damaged any more"),
});

function definition() {
  return hostCommand("repair", "verify the systems of this host, and repair damaged store paths")
    .addOption(jsonOption(repairSchema))
    .option("-n, --dry-run", "look, and change nothing");
}

export const repairCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((options) => {
    finish(repair(options, signal));
  });

/** `nixos-pull repair`: compares store paths with their hashes, and brings damaged ones back. */
async function repair(options: OptionsOf<typeof definition>, signal: AbortSignal): CommandResult {
  const settings = await loadSettings(options.config);
  const tools = composeTools(settings, createLog(settings.log, { byHand: true }));
  const dryRun = options.dryRun ?? false;
  const outcome = await repairStore(tools, { dryRun, signal });
  const { verified, damaged, error } = outcome;
  if (options.json) {
    const { hostname } = settings;
    const failure = error && errorJson(error);
    printJson(repairSchema, { hostname, dryRun, verified, damaged, error: failure });
  } else {
    describe(outcome);
  }
  return error?.exitCode ?? EXIT.ok;
}

function describe({ verified, damaged, error }: RepairOutcome): void {
  for (const item of damaged) printLine(describePath(item));
  const repaired = damaged.filter((it) => it.repaired);
  printLine(
    damaged.length === 0
      ? `${counted(verified, "store path")} verified: nothing is damaged.`
      : `${counted(verified, "store path")} verified, ${damaged.length} damaged or missing, ` +
          `${repaired.length} repaired.`,
  );
  if (repaired.some(({ inUse }) => inUse)) {
    note(
      "Programs that run keep what they had opened. Restart their units, or reboot, so that they " +
        "use the repaired files.",
    );
  }
  if (error) note(`${error.code}: ${error.message}`);
}

/** So many names of files are shown. */
const SHOWN_FILES = 5;

function describePath({ path, kind, neededBy, repaired, files }: DamagedPath): string {
  const needs = neededBy.length === 0 ? "" : `, needed by: ${neededBy.join(", ")}`;
  const shown = files.slice(0, SHOWN_FILES).map((file) => (file === "" ? "the path itself" : file));
  const more = files.length > SHOWN_FILES ? ", …" : "";
  const what = shown.length === 0 ? "" : ` (${shown.join(", ")}${more})`;
  return `${path}: ${kind}${needs}${repaired ? `; repaired${what}` : ""}`;
}
