import { directoryOf } from "../core/formats/mirror-address.ts";
import { stat } from "node:fs/promises";
import * as z from "zod";
import { EXIT, ERROR_KINDS, PullError, toPullError } from "../core/errors.ts";
import {
  channelSchema,
  describePosition,
  hostnameSchema,
  positionOf,
  readManifest,
  sha256Schema,
} from "../core/formats/manifest.ts";
import { EMPTY_STICK_CONTENTS } from "../core/formats/stick-contents.ts";
import { REPORT_PAYLOAD_TYPE, openReport, reportSchema } from "../core/formats/report.ts";
import { storePathSchema } from "../core/formats/store-path.ts";
import { trustPolicyOf } from "../core/settings.ts";
import { Times } from "../core/text/times.ts";
import { systemClock } from "../effects/host/clock.ts";
import { RootDirectory, fileNamed } from "../effects/files/root-directory.ts";
import { readStickContents } from "../effects/report/stick-contents-file.ts";
import { channelsIn } from "../operator/mirror/channels.ts";
import { seeDifference } from "../operator/channel/seen-difference.ts";
import { readSignedFile } from "../operator/channel/sign-release.ts";
import {
  verifyMirror,
  type VerifiedHost,
  type VerifiedMirror,
} from "../operator/mirror/verify-mirror.ts";
import {
  operatorCommand,
  type CommandMaker,
  type CommandResult,
  type OptionsOf,
} from "./command.ts";
import {
  countSchema,
  errorJson,
  errorSchema,
  printJson,
  releaseJson,
  releaseShape,
  timeSchema,
} from "./display/json.ts";
import { describeReport } from "./display/report.ts";
import { describeDifference, differenceJson, differenceSchema } from "./display/difference.ts";
import { note, printLine } from "./display/output.ts";
import { screenOf, show, styled, type Line } from "./display/screen.ts";
import { verifiedLines } from "./display/verified.ts";
import { WorkProgress } from "./display/work-progress.ts";
import { describeUnknownBefore, isSigned } from "../operator/channel/release-before.ts";
import { againstAt, againstOption } from "./options/against.ts";
import { configOption } from "./options/configuration.ts";
import { jsonOption } from "./options/json.ts";
import { utcOption } from "./options/utc.ts";
import { mirrorAt, mirrorPlace } from "./options/mirror-place.ts";
import {
  settingsFor,
  thresholdOption,
  trustedKeyOption,
  trustedStoreKeyOption,
} from "./options/trust.ts";
import { channelName } from "./options/values.ts";
import { publicKeysOf } from "./options/public-keys.ts";

/** What it prints of one system of a host. */
const hostSchema = z.strictObject({
  hostname: hostnameSchema,
  toplevel: storePathSchema,
  archive: z.strictObject({ sha256: sha256Schema }),
  paths: countSchema.nullable(),
  leftOut: z.boolean().optional().describe("true if a stick was packed without it"),
  missing: countSchema.optional().describe("NARs that the host must have already"),
  code: errorSchema.shape.code.optional().describe("absent if everything is right"),
  message: z.string().optional(),
});

/** What `verify --json` prints of a mirror. */
const verifiedSchema = z.strictObject({
  channels: z.array(
    z.union([
      z.strictObject({
        ...releaseShape,
        expired: z.boolean(),
        hosts: z.array(hostSchema),
        older: z
          .array(
            z.strictObject({
              epoch: countSchema,
              sequence: z.int().positive(),
              digest: sha256Schema,
              until: timeSchema,
              hosts: z.array(hostSchema),
              code: errorSchema.shape.code.optional().describe("absent if it is there"),
              message: z.string().optional(),
            }),
          )
          .describe("older releases for agents that lack what this one requires"),
      }),
      z.strictObject({ channel: channelSchema, error: errorSchema }),
    ]),
  ),
});

/** What it prints of a draft. */
const draftSchema = z.strictObject({
  ...releaseShape,
  epochReason: z.string().nullable().describe("why the numbering was restarted last"),
  difference: differenceSchema.describe("what the draft changes"),
});

function definition() {
  return operatorCommand(
    "verify",
    "verify a mirror, every byte of it, or the signatures of a draft or report",
  )
    .argument("<target>", "a mirror's directory or address, or a file with a draft or report")
    .addOption(trustedKeyOption())
    .addOption(trustedStoreKeyOption())
    .addOption(thresholdOption())
    .option(
      "--channel <name>",
      "the channel (default: all of a directory, or the configuration's)",
      channelName,
    )
    .option("--host <name>", "verify this host's archive only")
    .addOption(againstOption())
    .addOption(configOption("keys from here"))
    .addOption(utcOption())
    .addOption(jsonOption(z.union([verifiedSchema, draftSchema, reportSchema])));
}

type Options = OptionsOf<typeof definition>;

export const verifyCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((target, options) => {
    finish(verify(target, options, signal));
  });

/**
 * `nixos-pull verify TARGET`: verifies a mirror or stick, every byte of it; or the signatures
 * of a draft or a host's report.
 */
async function verify(address: string, options: Options, signal: AbortSignal): CommandResult {
  if (await isFile(address)) return verifyFile(address, options);
  const place = mirrorPlace(address);
  const settings = await settingsFor(place.text, options);
  const mirror = mirrorAt(place, settings);
  const directory = directoryOf(place);
  if (directory !== null) await expectTarget(directory);
  const contents =
    directory === null
      ? EMPTY_STICK_CONTENTS
      : await readStickContents(new RootDirectory(directory));
  const channels = await channelsOf(directory, options.channel, settings.channel);
  const progress = new WorkProgress();
  const found: Proof[] = [];
  for (const channel of channels) {
    try {
      const verified = await verifyMirror(mirror, {
        channel,
        trust: { ...trustPolicyOf(settings), threshold: options.threshold ?? settings.threshold },
        storeKeys: settings.storeKeys,
        hostname: options.host,
        contents,
        now: systemClock.now(),
        signal,
        onHost: (hostname) => {
          progress.step(`verifying the archive of ${hostname}`);
        },
      });
      found.push({ channel, verified });
    } catch (thrown) {
      const error = toPullError(thrown);
      // The other channels are still verified.
      if (channels.length === 1 || error.code === "INTERRUPTED") throw thrown;
      found.push({ channel, error });
    }
  }
  progress.clear();
  const proved = found.filter(({ verified }) => verified);
  // With --host, channels that do not name the host are left out.
  const meant =
    options.host === undefined || proved.length === 0
      ? found
      : found.filter(({ error }) => error?.code !== "HOST_NOT_IN_RELEASE");
  const [first] = found;
  if (proved.length === 0 && first?.error) throw first.error;
  printProofs(meant, options);
  const exits = meant.map(({ verified, error }) =>
    verified ? exitOf(verified) : (error?.exitCode ?? EXIT.internal),
  );
  return exits.find((exit) => exit !== EXIT.ok) ?? EXIT.ok;
}

/** What verifying one channel came to: what was verified, or why it was not. */
interface Proof {
  readonly channel: string;
  readonly verified?: VerifiedMirror;
  readonly error?: PullError;
}

function printProofs(proofs: readonly Proof[], { json, utc }: Pick<Options, "json" | "utc">): void {
  if (json) {
    printJson(verifiedSchema, {
      channels: proofs.flatMap<z.infer<typeof verifiedSchema>["channels"][number]>(
        ({ channel, verified, error }) => {
          if (verified) return [channelJson(verified)];
          return error ? [{ channel, error: errorJson(error) }] : [];
        },
      ),
    });
    return;
  }
  const times = new Times({ now: systemClock.now(), utc });
  show(
    proofs.flatMap(({ channel, verified, error }): Line[] =>
      verified
        ? verifiedLines(verified, times, screenOf(process.stdout))
        : [[styled("bad", "●"), ` ${channel}: ${error?.code}: ${error?.message}`]],
    ),
  );
}

/** The named channel; else every channel of a directory, or the one that is configured. */
async function channelsOf(
  directory: string | null,
  named: string | undefined,
  configured: string,
): Promise<string[]> {
  if (named !== undefined) return [named];
  const channels = directory === null ? [] : await channelsIn(new RootDirectory(directory));
  return channels.length > 0 ? channels : [configured];
}

function channelJson({ signed, expired, hosts, older }: VerifiedMirror) {
  const { signedBy, ...release } = releaseJson(signed);
  return {
    ...{ ...release, signedBy: [...signedBy], expired },
    hosts: hosts.map(hostJson),
    older: older.map((one) => ({ ...one, hosts: one.hosts.map(hostJson) })),
  };
}

function hostJson({ archive, ...host }: VerifiedHost): z.infer<typeof hostSchema> {
  return { ...host, archive: { sha256: archive } };
}

function exitOf({ expired, hosts, older }: VerifiedMirror): number {
  const all = [...hosts, ...older.flatMap((one) => [one, ...one.hosts])];
  const bad = all.find(({ code }) => code !== undefined);
  if (bad?.code !== undefined) return ERROR_KINDS[bad.code].exit;
  return expired ? ERROR_KINDS.MANIFEST_EXPIRED.exit : EXIT.ok;
}

/** Throws MIRROR_ABSENT if nothing is there: of a mirror's own files, verifying tells more. */
async function expectTarget(directory: string): Promise<void> {
  if ((await new RootDirectory(directory).stat("")) !== null) return;
  throw new PullError(
    "MIRROR_ABSENT",
    `${directory}: expected a mirror's directory, or a file with a draft or report, found nothing`,
  );
}

async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
}

async function verifyFile(file: string, options: Options): CommandResult {
  const { bytes, payloadType } = await readSignedFile(fileNamed(file));
  if (payloadType === REPORT_PAYLOAD_TYPE) {
    // One key: with several, one host could speak in another's name.
    const [key, ...others] = publicKeysOf("--public-key", options.publicKey);
    if (!key || others.length > 0) {
      throw new PullError(
        "USAGE",
        "expected one --public-key, which `nixos-pull report --public-key` prints on that host",
      );
    }
    const report = openReport(bytes, key);
    if (options.json) printJson(reportSchema, report);
    else printLine(describeReport(report));
    return EXIT.ok;
  }
  const settings = await settingsFor("file:///", options);
  const threshold = options.threshold ?? settings.threshold;
  const trust = { ...trustPolicyOf(settings), threshold };
  const signed = readManifest(bytes, trust);
  const { manifest, digest, signedBy } = signed;
  const { channel, createdAt, expiresAt } = manifest;
  const { publicKeys } = trust;
  const found = await againstAt(options.against, manifest, publicKeys);
  const { source } = found;
  const release = found.release && isSigned(found.release, trust) ? found.release : null;
  if (found.release && !release) {
    note(`nixos-pull: ${describeUnknownBefore(manifest, file)}. Everything is shown`);
  }
  const difference = await seeDifference(release, signed, source);
  if (options.json) {
    printJson(draftSchema, {
      ...{ ...releaseJson(signed), epochReason: manifest.epoch?.reason ?? null },
      difference: differenceJson(difference),
    });
  } else {
    const position = describePosition(positionOf(manifest));
    printLine(
      `Release ${position} of ${channel}, signed by ${signedBy.join(", ")}, created ${createdAt}, good until ${expiresAt}`,
    );
    printLine(`Digest ${digest}; archives were not checked`);
    for (const line of describeDifference(difference)) printLine(line);
  }
  return EXIT.ok;
}
