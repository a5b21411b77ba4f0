import { resolve } from "node:path";
import { EXIT } from "../core/errors.ts";
import { systemClock } from "../effects/host/clock.ts";
import { pruneMirror } from "../operator/mirror/prune-mirror.ts";
import {
  operatorCommand,
  type CommandMaker,
  type CommandResult,
  type OptionsOf,
} from "./command.ts";
import { formatBytes, printJson, printLine } from "./display/output.ts";
import { jsonOption } from "./options/json.ts";
import { positive } from "./options/values.ts";

function definition() {
  return operatorCommand("prune", "remove archives that no retained release needs")
    .argument("<mirror>", "the mirror's directory")
    .option(
      "--keep <count>",
      "releases of each channel to retain, the newest included",
      positive,
      3,
    )
    .option("--dry-run", "only say what would be removed")
    .addOption(jsonOption());
}

export const pruneCommand: CommandMaker = ({ finish }) =>
  definition().action((mirror, options) => {
    finish(prune(mirror, options));
  });

/** `nixos-pull prune MIRROR`: removes the archives that no retained release needs. */
async function prune(mirror: string, options: OptionsOf<typeof definition>): CommandResult {
  const dryRun = options.dryRun ?? false;
  const pruned = await pruneMirror({
    mirror: resolve(mirror),
    keep: options.keep,
    dryRun,
    clock: systemClock,
  });
  if (options.json) {
    printJson({ ...pruned, dryRun });
    return EXIT.ok;
  }
  const { releases, archives, bytes, keptArchives } = pruned;
  printLine(
    `${dryRun ? "Would remove" : "Removed"} ${archives.length} archives of ${formatBytes(bytes)}; ` +
      `${keptArchives} are needed.`,
  );
  for (const { channel, sequence } of releases) {
    printLine(`release ${sequence} of ${channel} ${dryRun ? "would be" : "is"} no longer retained`);
  }
  return EXIT.ok;
}
