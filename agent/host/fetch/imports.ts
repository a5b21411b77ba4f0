import type { NarInfo } from "../../core/formats/narinfo.ts";
import type { Staging } from "../../core/ports.ts";
import { topmost, type QueuedPath } from "../../core/transfer/import-queue.ts";
import { whileSpaceLasts } from "./disk-space.ts";
import { ImportStream } from "./import-stream.ts";
import { IMPORTED_ROOTS } from "./imported-paths.ts";
import { absolute, type FetchPlan } from "../../core/transfer/closure-plan.ts";
import type { FetchTools } from "./tools.ts";

/** Where imports come from and go to, and what they may take. */
export interface ImportContext {
  readonly staging: Staging;
  readonly tools: FetchTools;
  /** Bytes that staged NARs may take together. */
  readonly budget: number;
  readonly signal: AbortSignal;
  /** Hears at once of an import that failed. */
  readonly onFailure: () => void;
}

/** The stream that imports the plan's paths as their NARs arrive in staging. */
export function importStreamOf(plan: FetchPlan, context: ImportContext): ImportStream {
  const { staging, tools, budget, signal, onFailure } = context;
  const missing = new Map(plan.paths.map((it) => [it.path, it]));
  // In the form in which the NAR came: as the archive has it, or made by a delta.
  const infosOf = (paths: readonly QueuedPath[]): NarInfo[] =>
    paths.flatMap(({ path, file }) => {
      const { info, delta } = missing.get(path) ?? {};
      return (delta?.file === file ? delta.narInfo : info) ?? [];
    });
  return new ImportStream({
    budget,
    paths: plan.paths.map(({ path, info, member, delta }) => ({
      path,
      file: delta?.file ?? member,
      bytes: delta ? info.narSize : info.fileSize,
      references: info.references.map(absolute).filter((reference) => missing.has(reference)),
    })),
    async importPaths(paths) {
      tools.log.debug(`importing ${paths.length} of ${missing.size} paths`);
      // Before they are valid, so that no garbage collection can come in between.
      // What is damaged is not among them: what these roots hold may be removed after a power cut,
      // with everything that refers to it, and other systems refer to what was valid before.
      const isDamaged = ({ path }: QueuedPath): boolean => plan.damaged.has(path);
      const lacking = paths.filter((it) => !isDamaged(it));
      if (lacking.length > 0) await tools.roots.holdAlso(IMPORTED_ROOTS, topmost(lacking));
      await staging.writeNarInfos(infosOf(paths));
      const names = lacking.map(({ path }) => path);
      const damaged = infosOf(paths.filter(isDamaged));
      await whileSpaceLasts(tools, signal, async (until) => {
        if (names.length > 0) await tools.store.importPaths(staging.directory, names, until);
        if (damaged.length === 0) return;
        const { onMended } = tools;
        await tools.repair.mend(staging.directory, damaged, { signal: until, onMended });
      });
    },
    discard: (paths, files) =>
      staging.discard(
        infosOf(paths),
        files.map(({ file }) => file),
      ),
    onFailure,
  });
}
