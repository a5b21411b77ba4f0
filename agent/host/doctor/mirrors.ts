import { adviceFor } from "../../core/doctor/advice.ts";
import { about, type CheckResult } from "../../core/doctor/result.ts";
import { judgeRoute } from "../../core/doctor/route.ts";
import { judgeMirrorClock } from "../../core/doctor/time.ts";
import { PullError } from "../../core/errors.ts";
import { releaseFor, type Release } from "../../core/formats/manifest.ts";
import { directoriesAmong } from "../../core/formats/mirror-address.ts";
import type { Mirror } from "../../core/ports.ts";
import type { TrustMemories } from "../../core/release/acceptance.ts";
import type { AgentTools } from "../agent-tools.ts";
import { poll, type AcceptedManifest, type PollTools } from "../poll/poll.ts";
import type { Trial, TryTools } from "./trying.ts";

/** What trying mirrors takes. */
export type MirrorTools = PollTools & TryTools & Pick<AgentTools, "machineId">;

/** What one mirror showed. */
export interface TriedMirror {
  readonly mirror: Mirror;
  readonly results: readonly CheckResult[];
  /** What it has, if this host may follow it; else why not. */
  readonly accepted: AcceptedManifest | null;
  readonly error: PullError | null;
}

/** Tries one mirror by itself: the way to it, and what it has. Throws INTERRUPTED. */
export async function tryMirror(
  mirror: Mirror,
  memories: TrustMemories,
  tools: MirrorTools,
  trial: Trial,
): Promise<TriedMirror> {
  const [way, polled] = await Promise.all([
    tryWay(mirror, tools, trial),
    trial.value((signal) => poll({ ...tools, mirrors: [mirror] }, memories, { signal })),
  ]);
  const { accepted, error } =
    "value" in polled ? polled.value : { accepted: null, error: asMirrors(polled.error, mirror) };
  const archive = accepted ? await tryArchive(mirror, accepted, tools, trial) : [];
  const manifest = judgeManifest(mirror, { accepted, error, way }, trial);
  return { mirror, results: [...way, manifest, ...archive], accepted, error };
}

/** The error of a poll: of the time that all tries have, the mirror had all. */
function asMirrors(error: PullError, { address }: Mirror): PullError {
  if (error.code !== "TOOL_TIMEOUT") return error;
  return new PullError("MIRROR_STALLED", `${address}: ${error.message}`, { cause: error });
}

/** The way to a mirror: the steps to its server, or its directory. */
async function tryWay(
  { address }: Mirror,
  { settings, examination, clock }: MirrorTools,
  trial: Trial,
): Promise<readonly CheckResult[]> {
  const [directory] = directoriesAmong([address]);
  if (directory) {
    return trial.of(
      "mirror.directory",
      async () => {
        const it = about("mirror.directory", address);
        const found = await examination.file(directory.directory);
        if (found?.kind === "directory") return it.passed(directory.directory);
        // A stick that is out is no fault of this host.
        return it.untried(`${directory.directory} is not there now`, adviceFor("MIRROR_ABSENT"));
      },
      address,
    );
  }
  return trial.of(
    "mirror.name",
    async (signal) => {
      const file = `channels/${settings.channel}/manifest.json`;
      const route = await examination.route(address, file, signal);
      const now = clock.now();
      const { answer } = route;
      const results = judgeRoute(address, route, now);
      if (answer.kind !== "done") return results;
      return [...results, judgeMirrorClock(address, answer.value.date, now)];
    },
    address,
  );
}

/** Whether a mirror has a manifest that this host may follow. */
function judgeManifest(
  { address }: Mirror,
  {
    accepted,
    error,
    way,
  }: Pick<TriedMirror, "accepted" | "error"> & { readonly way: readonly CheckResult[] },
  trial: Trial,
): CheckResult {
  const it = about("mirror.manifest", address);
  if (accepted) return it.passed(`release ${accepted.offered.signed.manifest.sequence}`);
  if (error === null) return it.untried("the mirror was not asked");
  if (error.code === "MIRROR_ABSENT") return it.untried(error.message, adviceFor(error.code));
  // What keeps us from the mirror was told already.
  const obstacle = way.find(({ outcome }) => outcome === "failed");
  if (obstacle && error.code.startsWith("MIRROR_")) {
    return it.untried("what is wrong before this has to be mended first");
  }
  return trial.failure("mirror.manifest", error, address);
}

/** Whether the archive with this host's system is there, and whether parts of it can be had. */
async function tryArchive(
  mirror: Mirror,
  { offered }: AcceptedManifest,
  { settings, machineId }: MirrorTools,
  trial: Trial,
): Promise<readonly CheckResult[]> {
  const { address } = mirror;
  // What is wrong with the entry is told once, for all mirrors.
  if (offered.kind !== "understood") return [];
  let release: Release;
  try {
    release = releaseFor(offered.signed, settings.hostname, await machineId());
  } catch (error) {
    if (error instanceof PullError) return [];
    throw error;
  }
  const { sha256 } = release.archive;
  return trial.of(
    "mirror.archive",
    async (signal) => {
      const it = about("mirror.archive", address);
      const parts = (await mirror.heldParts?.(sha256)) ?? null;
      if (parts !== null)
        return it.passed(`${parts.length} parts of it, for hosts that have the rest`);
      let bytes = 0;
      for await (const piece of mirror.readArchive(sha256, { from: 1, to: 2 }, signal)) {
        bytes += piece.length;
      }
      if (bytes !== 1) {
        throw new PullError("ARCHIVE_TRUNCATED", `expected byte 1 of ${sha256}.tar, found none`);
      }
      return [it.passed(`${sha256}.tar`), ...judgeRanges(mirror)];
    },
    address,
  );
}

/** After a read from the middle. */
function judgeRanges({ address, ranges }: Mirror): CheckResult[] {
  if (directoriesAmong([address]).length > 0) return [];
  const it = about("mirror.ranges", address);
  return [
    ranges
      ? it.passed("it sends parts")
      : it.failed(
          "it sends the whole file: a download that breaks off begins anew",
          "have the server honour Range requests (nginx, Apache, Caddy and S3 do by themselves)",
        ),
  ];
}
