import { adviceFor } from "../../core/doctor/advice.ts";
import {
  isAboutEntry,
  judgeEntry,
  judgeNames,
  judgeSignatures,
  judgeTrustedKeys,
  noEntry,
  type NamedSystem,
} from "../../core/doctor/release.ts";
import { about, type CheckResult } from "../../core/doctor/result.ts";
import { judgeReleaseTimes } from "../../core/doctor/time.ts";
import type { PullError } from "../../core/errors.ts";
import { comparePositions } from "../../core/formats/manifest.ts";
import { rememberedPosition } from "../../core/release/acceptance.ts";
import type { FetchPreview } from "../../core/ports.ts";
import { counted, formatBytes } from "../../core/text/quantity.ts";
import { EMPTY_RECORD, type AgentRecord } from "../../core/update/record.ts";
import type { Decision } from "../../core/update/plan.ts";
import type { AgentTools } from "../agent-tools.ts";
import { findRelease, type FindTools } from "../poll/find-release.ts";
import type { AcceptedManifest } from "../poll/poll.ts";
import type { TriedMirror } from "./mirrors.ts";
import type { Trial, TryTools } from "./trying.ts";

/** What trying a release takes. */
export type ReleaseTools = FindTools & TryTools & Pick<AgentTools, "closures">;

/**
 * Judges what all mirrors together have for this host. `record` is null if it cannot be read: then
 * nobody can tell what this host does about the release. Throws INTERRUPTED.
 */
export async function tryRelease(
  tried: readonly TriedMirror[],
  record: AgentRecord | null,
  tools: ReleaseTools,
  trial: Trial,
): Promise<readonly CheckResult[]> {
  const { settings, clock } = tools;
  const newest = newestOf(tried);
  const refusals = tried.flatMap(({ error }) => error ?? []);
  const manifest = newest?.offered.signed.manifest ?? null;
  const all = [
    judgeAny(tried, trial),
    judgeReleaseTimes(manifest, refusals, clock.now()),
    judgeTrustedKeys(settings),
    judgeSignatures(newest?.offered.signed.signedBy ?? null, refusals),
    ...(await trial.of("release.name", async () =>
      judgeNames(settings.hostname, await namedSystems(tools)),
    )),
  ];
  if (!newest) {
    const why = "no mirror gave a release";
    const rest = (["release.decision", "release.closure", "keys.store"] as const).map((id) =>
      about(id).untried(why),
    );
    return [...all, ...noEntry(), ...rest];
  }
  // Only what serves: the others were tried, and would be waited for again.
  const mirrors = tried.filter(({ accepted }) => accepted !== null).map(({ mirror }) => mirror);
  return [...all, ...(await tryEntry(record, { ...tools, mirrors }, trial))];
}

function newestOf(tried: readonly TriedMirror[]): AcceptedManifest | null {
  let newest: AcceptedManifest | null = null;
  for (const { accepted } of tried) {
    if (!accepted) continue;
    const isNewer =
      newest === null ||
      comparePositions(rememberedPosition(accepted.memory), rememberedPosition(newest.memory)) > 0;
    if (isNewer) newest = accepted;
  }
  return newest;
}

function judgeAny(tried: readonly TriedMirror[], { isRoot }: Trial): CheckResult {
  const it = about("mirror.any");
  const good = tried.filter(({ accepted }) => accepted !== null).length;
  if (good > 0) return it.passed(`${good} of ${tried.length}`);
  const codes = [...new Set(tried.flatMap(({ error }) => error?.code ?? []))];
  const [first] = codes;
  if (!isRoot && first === "PERMISSION_DENIED" && codes.length === 1) {
    return it.untried("the agent's files are root's", "run it as root");
  }
  return it.failed(
    `none of ${tried.length}: ${codes.join(", ")}`,
    "mend one of the mirrors: without one this host gets no update",
    first,
  );
}

/** The systems of this host that have a name of their own. */
async function namedSystems({ store, systems }: ReleaseTools): Promise<NamedSystem[]> {
  const all = [
    { what: "the running system", toplevel: await store.runningToplevel() },
    { what: "the system profile", toplevel: await store.profileToplevel() },
  ];
  const found: NamedSystem[] = [];
  for (const { what, toplevel } of all) {
    if (toplevel !== null) found.push({ what, name: await systems.name(toplevel) });
  }
  return found;
}

/** What the release has for this host, and whether it can be brought in. */
async function tryEntry(
  record: AgentRecord | null,
  tools: ReleaseTools,
  trial: Trial,
): Promise<readonly CheckResult[]> {
  const found = await trial.value((signal) =>
    findRelease(record ?? EMPTY_RECORD, { insistence: "patient", signal }, tools),
  );
  if ("error" in found) return [trial.failure("release.decision", found.error)];
  const { release, decision, error } = found.value;
  const entry = judgeEntry(error && isAboutEntry(error) ? error : null);
  if (!release || !decision) {
    const why = "the release cannot be followed";
    const judged =
      error && !isAboutEntry(error)
        ? trial.failure("release.decision", error)
        : about("release.decision").untried(why);
    return [
      ...entry,
      judged,
      about("release.closure").untried(why),
      about("keys.store").untried(why),
    ];
  }
  const closure = await trial.value((signal) => tools.closures.preview(release, signal));
  const judged =
    record === null
      ? about("release.decision").untried(
          "the record of this host cannot be read",
          "run it as root",
        )
      : judgeDecision(decision, release.sequence);
  return [...entry, judged, ...judgeClosure(closure, trial)];
}

/** What this host does about its release. */
function judgeDecision(decision: Decision, sequence: number): CheckResult {
  const it = about("release.decision");
  const name = `release ${sequence}`;
  switch (decision.kind) {
    case "active":
    case "adopt":
      return it.passed(`${name} is active`);
    case "update":
      return it.passed(`${name} would be applied now`);
    case "waiting":
      return it.passed(`${name} waits: ${decision.waits.map(({ message }) => message).join("; ")}`);
    case "denied":
    case "backoff": {
      const { code, message } = decision.reason;
      const found = `${name} failed here: ${code}: ${message}`;
      return it.failed(found, adviceFor("RELEASE_DENIED"), "RELEASE_DENIED");
    }
    case "drifted":
      return it.failed(
        `somebody changed this host by hand, so that ${name} leaves it alone`,
        "`nixos-pull apply --again` brings the release back",
      );
    default:
      return decision satisfies never;
  }
}

/** Whether the system can be brought in, and whether its store paths are signed. */
function judgeClosure(
  closure: { readonly value: FetchPreview } | { readonly error: PullError },
  trial: Trial,
): CheckResult[] {
  if ("value" in closure) {
    const { paths, newPaths, downloadBytes, storeBytes } = closure.value;
    const found =
      newPaths === 0
        ? `all ${counted(paths, "path")} are here`
        : `${newPaths} of ${counted(paths, "path")} are missing: ${formatBytes(downloadBytes)} to ` +
          `download, ${formatBytes(storeBytes)} in the store`;
    return [about("release.closure").passed(found), about("keys.store").passed("all of them")];
  }
  const { error } = closure;
  if (!trial.isRoot && error.code === "IMPORT_FAILED") {
    // Nix was asked whether it would take paths from this user, and the agent is root.
    const why = "only root can tell whether Nix would take the paths";
    return [
      about("release.closure").untried(why, "run it as root"),
      about("keys.store").passed("all of them"),
    ];
  }
  const signatures = trial.failure("keys.store", error);
  return error.code === "PATH_SIGNATURE"
    ? [signatures, about("release.closure").untried("the check of storeKeys failed")]
    : [
        trial.failure("release.closure", error),
        about("keys.store").untried("the archive's index is not known"),
      ];
}
