import { availableParallelism } from "node:os";
import * as z from "zod";
import { PullError } from "../../core/errors.ts";
import { nixText } from "../../core/publish/nix-text.ts";
import { TO_JOBS, type HostSet } from "./host-set.ts";
import { nix, type BuildContext } from "./nix-builder.ts";

const PROGRAM = "nix-eval-jobs";

/** A line that nix-eval-jobs prints for a system. Others are about jobs that failed. */
const jobSchema = z.object({
  attrPath: z.tuple([z.string()]),
  drvPath: z.string(),
  extraValue: z.object({ says: z.record(z.string(), z.unknown()) }),
});

/** What a worker needs at least, bytes. With less, it would be started again for each host. */
const WORKER_MEMORY = 1024 ** 3;

/**
 * Evaluates hosts by nix-eval-jobs, if that is on PATH: its workers share what hosts have in common.
 * Gives each host as hosts files have it, its system as the path of a derivation. Hosts that fail, and
 * those that are left out, are not among them, and neither is any if the program fails or is too old:
 * Nix itself evaluates these, so that its errors are the same with and without the program. Throws
 * INTERRUPTED.
 */
export async function evaluateByJobs(
  set: HostSet,
  names: readonly string[],
  { memory, ...context }: BuildContext & { readonly memory: number },
): Promise<Map<string, unknown>> {
  if (!(await isUsable(context))) return new Map();
  const expression = await set.expression(context);
  if (!expression) return new Map();
  const fitting = Math.floor(memory / WORKER_MEMORY);
  const workers = Math.max(1, Math.min(availableParallelism(), names.length, fitting));
  // A worker ends once it is above its limit, so it needs room for one more host.
  const limit = Math.floor(((memory / workers) * 3) / 4 / 1024 ** 2);
  const stdout = await outputOf(
    [
      ...["--option", "extra-experimental-features", "nix-command flakes"],
      ...(expression.pure ? ["--option", "pure-eval", "true"] : []),
      ...["--workers", String(workers), "--max-memory-size", String(limit)],
      ...["--apply", "job: { inherit (job) says; }"],
      ...["--expr", `(${TO_JOBS}) (${expression.text}) ${nixText(names)}`],
    ],
    context,
  );
  return new Map((stdout ?? "").split("\n").flatMap(hostIn));
}

/** Programs before it knew `--apply` do not say what a host's configuration says. */
async function isUsable(context: BuildContext): Promise<boolean> {
  return (await outputOf(["--help"], context))?.includes("--apply") ?? false;
}

/** What the program prints; null if there is none, or it fails. */
async function outputOf(args: readonly string[], context: BuildContext): Promise<string | null> {
  try {
    return (await nix(PROGRAM, args, context)).stdout;
  } catch (error) {
    if (!(error instanceof PullError) || error.code === "INTERRUPTED") throw error;
    return null;
  }
}

function hostIn(line: string): [string, unknown][] {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch {
    return [];
  }
  const { data } = jobSchema.safeParse(json);
  return data ? [[data.attrPath[0], { ...data.extraValue.says, system: data.drvPath }]] : [];
}
