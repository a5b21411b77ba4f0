import * as z from "zod";
import { errorJson, errorSchema } from "./json.ts";
import { EXIT } from "../../core/errors.ts";
import type { Finding } from "../../host/poll/finding.ts";
import { verdictSchema, type MirrorVerdict } from "../../host/poll/poll.ts";
import { describePosition, releaseSchema, type Release } from "../../core/formats/manifest.ts";
import { storePathSchema } from "../../core/formats/store-path.ts";
import { endOf, waitSchema, type Wait } from "../../core/schedule/waiting.ts";
import type { Decision } from "../../core/update/plan.ts";
import { isTrial, type AgentRecord } from "../../core/update/record.ts";
import { reasonSchema, type Reason } from "../../core/update/states.ts";
import type { HostWords } from "./host-words.ts";
import { styled, type Text } from "./screen.ts";

/** What was found, and what the record says beside it. */
type FoundBeside = Finding & { readonly record: AgentRecord };

/** What a poll found and what follows from it, in lines. */
export function describeFinding(finding: FoundBeside, words: HostWords): Text[] {
  const { next } = finding;
  return [
    ...errorBeside(finding, words),
    describeOne(finding, words),
    ...(next ? [`It stands before ${releaseName(next)}, which comes next.`] : []),
  ];
}

/** What is wrong although a release was found and nothing is to be done: a newer one needs a newer agent. */
function errorBeside({ release, decision, error }: Finding, words: HostWords): Text[] {
  const isBeside = release !== null && decision !== null && decision.kind !== "update";
  return isBeside && error ? [styled("bad", words.reason(error))] : [];
}

function describeOne(finding: FoundBeside, words: HostWords): Text {
  const { release, decision, error } = finding;
  if (release && decision) return describeDecision(decision, release, finding.record, words);
  if (!error) return "Nothing to do.";
  if (error.code === "MIRROR_STALE") {
    return [styled("bad", "Nothing to do"), `: ${words.reason(error)}`];
  }
  const what = error.exitCode === EXIT.trust ? "Refused" : "No release could be read";
  return [styled("bad", what), `: ${words.reason(error)}`];
}

function describeDecision(
  decision: Decision,
  release: Release,
  { pendingReboot }: AgentRecord,
  words: HostWords,
): Text {
  const name = releaseName(release);
  switch (decision.kind) {
    case "active":
      if (pendingReboot && isTrial(pendingReboot)) {
        return [styled("waiting", "Nothing to do now"), `: ${name} waits for its boot.`];
      }
      return [styled("good", "Nothing to do"), `: ${name} is active.`];
    case "adopt":
      return [styled("good", "Nothing to do"), `: this host already is what ${name} asks for.`];
    case "drifted":
      return [
        styled("waiting", "Nothing to do"),
        `: ${name} was activated, then this host was changed by hand to ` +
          `${words.system(decision.found)}; it is left alone. \`nixos-pull apply --again\` brings the release back.`,
      ];
    case "denied":
      return [
        styled("bad", "Nothing to do"),
        `: ${name} is denied on this host: ${words.reason(denied(decision.reason))}. ` +
          "A release with another system, or `nixos-pull apply --again`, ends that.",
      ];
    case "backoff":
      return decision.until === null
        ? [
            styled("bad", `${name} was tried often enough`),
            `, and waits for \`nixos-pull apply\` or another release: ${words.reason(decision.reason)}`,
          ]
        : [
            styled("bad", `Waiting until ${words.times.clock(decision.until)}`),
            `${words.away(decision.until)} to try ${name} again: ${words.reason(decision.reason)}`,
          ];
    case "waiting": {
      const waits = decision.waits.map((it) => describeWait(it, words)).join("; ");
      return [styled("waiting", "Nothing to do yet"), `: ${name} waits: ${waits}`];
    }
    case "update":
      return [
        styled("busy", `${name} would be applied`),
        `: ${describeActivation(release, words)}`,
      ];
    default:
      return decision satisfies never;
  }
}

/** Why a system is denied, with the code that stands for that. */
function denied({ code, message }: Reason): Reason {
  if (code === "RELEASE_DENIED") return { code, message };
  return { code: "RELEASE_DENIED", message: `${code}: ${message}` };
}

/** What is waited for, and how far away its end is; a hold's message has its end in the middle. */
export function describeWait(
  { reason, message, until }: Pick<Wait, "message" | "until"> & { readonly reason: string },
  words: HostWords,
): string {
  const when = until === null || reason === "HELD" ? "" : words.away(until);
  return `${reason}: ${words.message(message)}${when}`;
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
export function describeActivation(
  { mode, toplevel, specialisation }: Pick<Release, "mode" | "toplevel" | "specialisation">,
  words: Pick<HostWords, "system">,
): string {
  return `${mode} ${describeSystem({ toplevel: words.system(toplevel), specialisation })}`;
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
