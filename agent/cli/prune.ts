import { resolve } from "node:path";
import { EXIT } from "../core/errors.ts";
import { systemClock } from "../effects/host/clock.ts";
import { pruneMirror } from "../operator/mirror/prune-mirror.ts";
import type { CommandResult } from "./command.ts";
import { formatBytes, printJson, printLine } from "./display/output.ts";

export interface PruneCommandOptions {
  readonly keep: number;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

/** `nixos-pull prune MIRROR`: removes the archives that no retained release needs. */
export async function prune(mirror: string, options: PruneCommandOptions): CommandResult {
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
