import * as z from "zod";
import { errorJson, errorSchema } from "./json.ts";
import { EXIT } from "../../core/errors.ts";
import type { Finding } from "../../host/poll/finding.ts";
import { verdictSchema, type MirrorVerdict } from "../../host/poll/poll.ts";
import { describePosition, releaseSchema, type Release } from "../../core/formats/manifest.ts";
import { storePathSchema } from "../../core/formats/store-path.ts";
import { endOf, waitSchema } from "../../core/schedule/waiting.ts";
import { isTrial, type AgentRecord } from "../../core/update/record.ts";
import { reasonSchema } from "../../core/update/states.ts";

/** One sentence about what a poll found and what follows from it. */
export function describeFinding(finding: Finding & { readonly record: AgentRecord }): string {
  const { next } = finding;
  const said = [...errorBeside(finding), describeOne(finding)].join("\n");
  return next ? `${said}\nIt stands before ${releaseName(next)}, which comes next.` : said;
}

/** What is wrong although a release was found and nothing is to be done: a newer one needs a newer agent. */
function errorBeside({ release, decision, error }: Finding): string[] {
  const isBeside = release !== null && decision !== null && decision.kind !== "update";
  return isBeside && error ? [`${error.code}: ${error.message}`] : [];
}

function describeOne({
  release,
  decision,
  error,
  record: { pendingReboot },
}: Finding & { readonly record: AgentRecord }): string {
  if (!release || !decision) {
    if (!error) return "Nothing to do.";
    if (error.code === "MIRROR_STALE") return `Nothing to do: ${error.code}: ${error.message}`;
    const what = error.exitCode === EXIT.trust ? "Refused" : "No release could be read";
    return `${what}: ${error.code}: ${error.message}`;
  }
  const name = releaseName(release);
  switch (decision.kind) {
    case "active":
      if (pendingReboot && isTrial(pendingReboot)) {
        return `Nothing to do now: ${name} waits for its boot.`;
      }
      return `Nothing to do: ${name} is active.`;
    case "adopt":
      return `Nothing to do: this host already is what ${name} asks for.`;
    case "drifted":
      return (
        `Nothing to do: ${name} was activated, then this host was changed by hand to ` +
        `${decision.found ?? "nothing"}; it is left alone. \`nixos-pull apply --again\` brings the release back.`
      );
    case "denied":
      return (
        `Nothing to do: ${name} is denied on this host: ${decision.reason.code}: ` +
        `${decision.reason.message}. A release with another system, or \`nixos-pull apply --again\`, ends that.`
      );
    case "backoff":
      return (
        (decision.until === null
          ? `${name} was tried often enough, and waits for \`nixos-pull apply\` or another release: `
          : `Waiting until ${decision.until} to try ${name} again: `) +
        `${decision.reason.code}: ${decision.reason.message}`
      );
    case "waiting":
      return `Nothing to do yet: ${name} waits: ${decision.waits.map(({ reason, message }) => `${reason}: ${message}`).join("; ")}`;
    case "update":
      return `${name} would be applied: ${describeActivation(release)}`;
    default:
      return decision satisfies never;
  }
}

/** What one mirror had, or why nothing of it counts. */
export function describeVerdict({ code, message, epoch = 0, sequence = 0 }: MirrorVerdict): string {
  return code === undefined
    ? `release ${describePosition({ epoch, sequence })}`
    : `${code}: ${message}`;
}

export function releaseName(release: Pick<Release, "channel" | "epoch" | "sequence">): string {
  const { channel, epoch = 0, sequence } = release;
  return `release ${sequence} of ${channel}${epoch === 0 ? "" : `, epoch ${epoch}`}`;
}

/** How a host activates a release, and what: the mode, the system, and its specialisation. */
export function describeActivation({
  mode,
  toplevel,
  specialisation,
}: Pick<Release, "mode" | "toplevel" | "specialisation">): string {
  return `${mode} ${describeSystem({ toplevel, specialisation })}`;
}

/** A system, and the specialisation of it that is to run, if one is. */
export function describeSystem({
  toplevel,
  specialisation,
}: {
  readonly toplevel: string;
  readonly specialisation?: string | null | undefined;
}): string {
  return specialisation ? `${toplevel}, specialisation ${specialisation}` : toplevel;
}

/** What a poll found, and what follows from it: the part that `check` and `apply` share. */
export const findingShape = {
  decision: z
    .enum(["active", "adopt", "drifted", "denied", "backoff", "waiting", "update"])
    .nullable()
    .describe("null if no release was accepted for this host"),
  reason: reasonSchema.optional().describe("why the system is denied, or failed last"),
  until: z.iso
    .datetime()
    .nullable()
    .optional()
    .describe("when it is tried, or may go; null: not by itself"),
  waits: z.array(waitSchema).optional(),
  found: storePathSchema.nullable().optional().describe("what the host was changed to by hand"),
  error: errorSchema.nullable(),
  release: releaseSchema.nullable(),
  next: releaseSchema.optional().describe("the release that comes after this one"),
  mirrors: z.array(verdictSchema),
};
type FindingJson = z.infer<z.ZodObject<typeof findingShape>>;

/** A finding for `--json`. */
export function findingJson({ release, next, decision, error, verdicts }: Finding): FindingJson {
  return {
    decision: decision?.kind ?? null,
    ...(decision && "reason" in decision ? { reason: decision.reason } : {}),
    ...(decision?.kind === "backoff" ? { until: decision.until } : {}),
    ...(decision?.kind === "waiting"
      ? { waits: [...decision.waits], until: endOf(decision.waits) }
      : {}),
    ...(decision?.kind === "drifted" ? { found: decision.found } : {}),
    error: error ? errorJson(error) : null,
    release,
    ...(next && { next }),
    mirrors: [...verdicts],
  };
}
