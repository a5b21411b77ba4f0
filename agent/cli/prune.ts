import * as z from "zod";
import { EXIT } from "../core/errors.ts";
import { systemClock } from "../effects/host/clock.ts";
import { channelSchema, describePosition, sha256Schema } from "../core/formats/manifest.ts";
import { pruneMirror, type Pruned } from "../operator/mirror/prune-mirror.ts";
import {
  operatorCommand,
  type CommandMaker,
  type CommandResult,
  type OptionsOf,
} from "./command.ts";
import { bytesSchema, countSchema, printJson } from "./display/json.ts";
import { counted, formatBytes } from "../core/text/quantity.ts";
import { note, printLine } from "./display/output.ts";
import { jsonOption } from "./options/json.ts";
import { positive } from "./options/values.ts";
import { mirrorDirectory } from "./options/mirror-place.ts";

/** What was removed from a mirror, or would be. */
export const prunedSchema = z.strictObject({
  releases: z
    .array(
      z.strictObject({
        channel: channelSchema,
        sequence: z.int().positive(),
        draft: z.boolean().describe("true if it never came into force"),
      }),
    )
    .describe("those that are no longer retained"),
  kept: z
    .array(
      z.strictObject({
        channel: channelSchema,
        epoch: countSchema,
        sequence: z.int().positive(),
        inForce: z.boolean(),
      }),
    )
    .describe("those that are retained, which `release abort --to` and `--barrier` may name"),
  archives: z.array(z.strictObject({ sha256: sha256Schema })),
  bytes: bytesSchema,
  keptArchives: countSchema,
});

/** The same for `--json`. */
export function prunedJson({ archives, ...pruned }: Pruned) {
  return {
    ...pruned,
    releases: [...pruned.releases],
    kept: [...pruned.kept],
    archives: archives.map((sha256) => ({ sha256 })),
  };
}

/** What `prune --json` prints. */
const pruneSchema = prunedSchema.extend({ dryRun: z.boolean() });

function definition() {
  return operatorCommand("prune", "remove archives that no retained release needs")
    .argument("<mirror>", "the mirror's directory")
    .option(
      "--keep <count>",
      "releases of each channel with different systems to retain, the newest included",
      positive,
      3,
    )
    .option("--dry-run", "only say what would be removed")
    .addOption(jsonOption(pruneSchema));
}

export const pruneCommand: CommandMaker = ({ finish }) =>
  definition().action((mirror, options) => {
    finish(prune(mirror, options));
  });

/** `nixos-pull prune MIRROR`: removes the archives that no retained release needs. */
async function prune(mirror: string, options: OptionsOf<typeof definition>): CommandResult {
  const dryRun = options.dryRun ?? false;
  const pruned = await pruneMirror({
    mirror: mirrorDirectory(mirror),
    keep: options.keep,
    dryRun,
    clock: systemClock,
    onWarning: (message) => {
      note(`nixos-pull: ${message}`);
    },
  });
  if (options.json) {
    printJson(pruneSchema, { ...prunedJson(pruned), dryRun });
    return EXIT.ok;
  }
  const { releases, kept, archives, bytes, keptArchives } = pruned;
  printLine(
    `${dryRun ? "Would remove" : "Removed"} ${counted(archives.length, "archive")} of ${formatBytes(bytes)}; ` +
      `${counted(keptArchives, "archive")} ${keptArchives === 1 ? "stays" : "stay"}.`,
  );
  for (const { channel, sequence, draft } of releases) {
    const what = draft ? "A draft of release" : "Release";
    printLine(`${what} ${sequence} of ${channel} ${dryRun ? "would go" : "is gone"}.`);
  }
  for (const channel of new Set(kept.map((one) => one.channel))) {
    printLine(describeKept(channel, kept));
  }
  return EXIT.ok;
}

/** `Of stable these releases stay: 9 (in force), 8, 5.` */
function describeKept(channel: string, kept: Pruned["kept"]): string {
  const own = kept.filter((one) => one.channel === channel);
  const names = own.map(
    (position) => `${describePosition(position)}${position.inForce ? " (in force)" : ""}`,
  );
  const isAlone = own.length === 1;
  const stay = isAlone ? "this release stays" : "these releases stay";
  const warning = isAlone ? "; `release abort` has nothing to go back to" : "";
  return `Of ${channel} ${stay}: ${names.join(", ")}${warning}.`;
}
