import * as z from "zod";
import { ERROR_KINDS, EXIT, PullError } from "../core/errors.ts";
import { describePosition, hostnameSchema, positionOf } from "../core/formats/manifest.ts";
import { directoryOf, type MirrorAddress } from "../core/formats/mirror-address.ts";
import { trustPolicyOf } from "../core/settings.ts";
import { Times } from "../core/text/times.ts";
import { systemClock } from "../effects/host/clock.ts";
import { systemDisk } from "../effects/files/disk.ts";
import type { HostKeys } from "../core/fleet/report-trust.ts";
import { readHostKeys } from "../fleet/host-keys.ts";
import { copyMirror } from "../operator/mirror/copy-mirror.ts";
import type {
  CopiedChannel,
  CopiedMirror,
  CopyOptions,
  CopyProgress,
} from "../operator/mirror/copy-options.ts";
import { uploadMirror } from "../operator/mirror/upload-mirror.ts";
import { bringReports } from "../operator/mirror/stick-reports.ts";
import {
  operatorCommand,
  type CommandMaker,
  type CommandResult,
  type OptionsOf,
} from "./command.ts";
import { bytesSchema, countSchema, printJson, releaseJson, releaseShape } from "./display/json.ts";
import { counted, formatBytes } from "../core/text/quantity.ts";
import { note, printLine } from "./display/output.ts";
import { screenOf, show, styled, table, type Text } from "./display/screen.ts";
import { WorkProgress } from "./display/work-progress.ts";
import { prunedJson, prunedSchema } from "./prune.ts";
import { configOption } from "./options/configuration.ts";
import { hostKeysOption, reportKeyOption } from "./options/host-keys.ts";
import { reportsFrom } from "./options/reports.ts";
import { jsonOption } from "./options/json.ts";
import { utcOption } from "./options/utc.ts";
import { bucketAt, mirrorAt, mirrorPlace } from "./options/mirror-place.ts";
import {
  settingsFor,
  thresholdOption,
  trustedKeyOption,
  trustedStoreKeyOption,
} from "./options/trust.ts";
import { positive, repeatable, repeatableChannel } from "./options/values.ts";

/** What `mirror --json` prints of releases that were copied. */
const copiedSchema = z.strictObject({
  channels: z.array(
    z.strictObject({
      ...releaseShape,
      expired: z.boolean(),
      isNews: z.boolean().describe("false if the destination had this very release"),
      hosts: z.array(
        z.strictObject({
          hostname: hostnameSchema,
          members: countSchema.nullable().describe("NARs and deltas for it; null: all it needs"),
          note: z.string().optional().describe("why it got everything although it reported"),
        }),
      ),
    }),
  ),
  strangers: z.array(z.string()).describe("hosts that reported, but that no release names"),
  copied: z.strictObject({
    archives: countSchema,
    bytes: bytesSchema,
    patches: countSchema.describe("archives of index patches, beside those"),
    present: countSchema.describe("archives that were there already"),
  }),
  pruned: prunedSchema.nullable(),
  dryRun: z.boolean(),
});

/** What `mirror --reports --json` prints: hosts by name, and files that were refused. */
const broughtSchema = z.strictObject({
  brought: z.array(z.string()),
  known: z.array(z.string()).describe("hosts of which the destination has a report as new"),
  refused: z.array(z.strictObject({ file: z.string(), code: z.string(), message: z.string() })),
  verified: z.boolean().describe("false if no keys were given to verify signatures with"),
  dryRun: z.boolean(),
});

function definition() {
  return operatorCommand(
    "mirror",
    "copy releases to a directory, stick or bucket, or bring reports home from a directory",
  )
    .argument("<from>", "a mirror's directory or address")
    .argument("<to>", "a directory, made if it is not there, or s3://BUCKET/PREFIX")
    .addOption(repeatableChannel("copy this channel", "all, or stable of a server"))
    .addOption(repeatable("--host <name>", "copy the archives of this host only", "all"))
    .addOption(
      repeatable(
        "--for-report <file>",
        "a signed report, or a directory of them: copy only what these hosts lack",
      ),
    )
    .addOption(reportKeyOption())
    .addOption(hostKeysOption())
    .option("--deltas", "leave out paths that a reporting host can make with a delta")
    .option(
      "--keep <count>",
      "releases of each channel to retain there; archives that none of them needs are removed (default: all)",
      positive,
    )
    .option(
      "--prune",
      "of a bucket: remove archives that no release there needs and that the directory does not have",
    )
    .option("--allow-older", "put an older release in the place of a newer one")
    .option("--reports", "bring reports from there, and no releases")
    .addOption(trustedKeyOption())
    .addOption(trustedStoreKeyOption())
    .addOption(thresholdOption())
    .addOption(configOption("keys, credentials and limits from here"))
    .option("--dry-run", "only say what would be copied")
    .addOption(utcOption())
    .addOption(jsonOption(z.union([copiedSchema, broughtSchema])));
}

type Options = OptionsOf<typeof definition>;

export const mirrorCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((from, to, options) => {
    finish(mirror(from, to, options, signal));
  });

/**
 * `nixos-pull mirror SRC DST`: copies releases to a directory or a bucket, or brings reports home
 * from a directory.
 */
async function mirror(
  from: string,
  to: string,
  options: Options,
  signal: AbortSignal,
): CommandResult {
  const source = mirrorPlace(from);
  const target = mirrorPlace(to);
  if (target.kind === "bucket") return upload(source, target, options, signal);
  if (target.kind !== "directory") {
    throw new PullError(
      "USAGE",
      `expected a directory or s3://BUCKET/PREFIX to copy to, found ${JSON.stringify(to)}`,
    );
  }
  if (options.prune) {
    throw new PullError(
      "USAGE",
      "--prune: expected a bucket; of a directory, --keep removes archives",
    );
  }
  const isGiven = options.keys.length > 0 || options.reportKey.length > 0;
  const keys = isGiven ? await readHostKeys(options.keys, options.reportKey) : null;
  const journey = { source, destination: target.directory, keys };
  return options.reports ? bringHome(journey, options) : copy(journey, options, signal);
}

/** From where to where, and by which keys reports are believed; null if none was named. */
interface Journey {
  readonly source: MirrorAddress;
  readonly destination: string;
  readonly keys: HostKeys | null;
}

async function bringHome({ source, destination, keys }: Journey, options: Options): CommandResult {
  if (source.kind !== "directory") {
    throw new PullError(
      "USAGE",
      "expected a directory to bring reports from: a server has no list",
    );
  }
  const dryRun = options.dryRun ?? false;
  const now = systemClock.now();
  const result = await bringReports(source.directory, destination, { keys, now, dryRun });
  const { brought, known, refused } = result;
  if (options.json) printJson(broughtSchema, { ...result, verified: keys !== null, dryRun });
  else {
    printLine(
      `${dryRun ? "Would bring" : "Brought"} ${counted(brought.length, "report")}` +
        `${brought.length > 0 ? ` (${brought.join(", ")})` : ""}; already known: ${known.length}.` +
        (keys === null ? " Signatures were not checked." : ""),
    );
    for (const { file, code, message } of refused) printLine(`${file}  ${code}  ${message}`);
  }
  return refused.length > 0 ? ERROR_KINDS.REPORT_INVALID.exit : EXIT.ok;
}

/** Copies into a bucket, for all hosts: sticks alone have less than everything. */
async function upload(
  from: MirrorAddress,
  to: MirrorAddress & { readonly kind: "bucket" },
  options: Options,
  signal: AbortSignal,
): CommandResult {
  const { host, forReport, deltas, keep, reports } = options;
  const isPart = host.length > 0 || forReport.length > 0 || deltas === true || reports === true;
  if (isPart || keep !== undefined) {
    throw new PullError(
      "USAGE",
      "expected a directory to copy to with --host, --for-report, --deltas, --keep and --reports; a " +
        "bucket gets everything, and --prune removes archives from it",
    );
  }
  const settings = await settingsFor(from.text, options);
  const dryRun = options.dryRun ?? false;
  const copied = await withProgress((shown) =>
    uploadMirror({
      ...{ source: mirrorAt(from, settings), dryRun, signal, ...shown },
      bucket: bucketAt(to, settings, signal),
      asMirror: mirrorAt(to, settings),
      sourceDirectory: directoryOf(from),
      channels: options.channel.length > 0 ? [...new Set(options.channel)] : null,
      trust: { ...trustPolicyOf(settings), threshold: options.threshold ?? settings.threshold },
      storeKeys: settings.storeKeys,
      allowOlder: options.allowOlder ?? false,
      prune: options.prune ?? false,
      clock: systemClock,
    }),
  );
  if (options.json) printJson(copiedSchema, jsonOf(copied, dryRun));
  else printCopied(copied, to.text, { dryRun, utc: options.utc });
  return EXIT.ok;
}

/** How far a copy is, and what it warns of, on standard error. */
type Shown = Pick<CopyOptions, "onProgress" | "onWarning">;

async function withProgress<T>(work: (shown: Shown) => Promise<T>): Promise<T> {
  const progress = new WorkProgress();
  try {
    return await work({
      onProgress: (event) => {
        showProgress(event, progress);
      },
      onWarning: (message) => {
        progress.clear();
        note(`nixos-pull: ${message}`);
      },
    });
  } finally {
    progress.clear();
  }
}

async function copy(
  { source: address, destination, keys }: Journey,
  options: Options,
  signal: AbortSignal,
): CommandResult {
  const reports = await reportsFrom(options.forReport, keys, "--for-report");
  const settings = await settingsFor(address.text, options);
  const source = mirrorAt(address, settings);
  const dryRun = options.dryRun ?? false;
  const copied = await withProgress((shown) =>
    copyMirror({
      ...{ source, destination, reports, dryRun, signal, ...shown },
      sourceDirectory: directoryOf(address),
      channels: options.channel.length > 0 ? [...new Set(options.channel)] : null,
      hosts: options.host.length > 0 ? [...new Set(options.host)] : null,
      deltas: options.deltas ?? false,
      trust: { ...trustPolicyOf(settings), threshold: options.threshold ?? settings.threshold },
      storeKeys: settings.storeKeys,
      allowOlder: options.allowOlder ?? false,
      keep: options.keep ?? null,
      clock: systemClock,
      disk: systemDisk,
    }),
  );
  if (options.json) printJson(copiedSchema, jsonOf(copied, dryRun));
  else printCopied(copied, destination, { dryRun, utc: options.utc });
  return EXIT.ok;
}

function showProgress(event: CopyProgress, progress: WorkProgress): void {
  switch (event.phase) {
    case "index":
      progress.step(`reading the index of ${event.hostname}`);
      break;
    case "patches":
      progress.step(`index patches are not copied: ${event.message}`);
      break;
    case "copy": {
      const what = `copying ${counted(event.archives, "archive")}`;
      progress.hear(event.phase, { what, done: event.bytes, of: event.ofBytes });
      break;
    }
    default:
      event satisfies never;
  }
}

function jsonOf({ channels, strangers, archives, pruned }: CopiedMirror, dryRun: boolean) {
  const { copied, ...others } = archives;
  return {
    channels: channels.map(({ signed, expired, isNews, hosts }) => ({
      ...releaseJson(signed),
      ...{ expired, isNews, hosts },
    })),
    strangers,
    copied: { archives: copied, ...others },
    pruned: pruned && prunedJson(pruned),
    dryRun,
  };
}

function printCopied(
  copied: CopiedMirror,
  destination: string,
  { dryRun, utc }: { readonly dryRun: boolean; readonly utc: true | undefined },
): void {
  const { channels, strangers, archives, pruned } = copied;
  const times = new Times({ now: systemClock.now(), utc });
  const rows = channels.flatMap(({ hosts }) =>
    hosts
      .filter(({ members, note: why }) => members !== null || why !== undefined)
      .map(({ hostname, members, note: why }) => [
        styled("strong", hostname),
        members === null ? "everything" : describeMembers(members),
        why ?? "",
      ]),
  );
  show([
    ...channels.map((one) => describeChannel(one, times)),
    ...table(rows, screenOf(process.stdout)),
    `${dryRun ? "Would copy" : "Copied"} ${counted(archives.copied, "archive")}, ${formatBytes(archives.bytes)}, ` +
      `to ${destination}; already there: ${archives.present}.`,
    ...(pruned
      ? [`Removed ${counted(pruned.archives.length, "archive")} of ${formatBytes(pruned.bytes)}.`]
      : []),
  ]);
  for (const hostname of strangers)
    note(`nixos-pull: no release names ${hostname}, which reported`);
}

function describeMembers(count: number): string {
  return count === 1 ? "1 NAR or delta" : `${count} NARs and deltas`;
}

function describeChannel(
  { channel, signed, expired, isNews, hosts }: CopiedChannel,
  times: Times,
): Text {
  const { expiresAt, hosts: all } = signed.manifest;
  const position = describePosition(positionOf(signed.manifest));
  return [
    styled(expired ? "bad" : isNews ? "good" : "dim", "●"),
    " ",
    styled("strong", `Release ${position} of ${channel}`),
    `, signed by ${signed.signedBy.join(", ")}, ${isNews ? "" : "there already, "}for ` +
      `${hosts.length} of ${counted(Object.keys(all).length, "host")}, `,
    expired
      ? styled("bad", `EXPIRED ${times.both(expiresAt)}`)
      : `good until ${times.clock(expiresAt)}`,
  ];
}
