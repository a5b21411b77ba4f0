import { resolve } from "node:path";
import { Option } from "@commander-js/extra-typings";
import { EXIT, PullError } from "../core/errors.ts";
import { ACTIVATION_MODES, specialisationSchema } from "../core/formats/manifest.ts";
import { COMPRESSIONS } from "../core/formats/narinfo.ts";
import { systemClock } from "../effects/host/clock.ts";
import { parseHostOption } from "../operator/publish/host-spec.ts";
import { COMPRESSION_LEVELS } from "../operator/publish/nar-compressor.ts";
import {
  expectHostsSources,
  parseFlakeOption,
  parseHostsSource,
  readHosts,
} from "../operator/publish/read-hosts.ts";
import { parseAllowedSecret } from "../operator/publish/secret-guard.ts";
import { publish as publishRelease } from "../operator/publish/publish.ts";
import type { PublishProgress, PublishRequest } from "../operator/publish/publish-options.ts";
import { publishDraft } from "../operator/channel/publish-draft.ts";
import { parseAssignment, parseGroups } from "../operator/channel/rollout-request.ts";
import {
  operatorCommand,
  type CommandMaker,
  type CommandResult,
  type OptionsOf,
} from "./command.ts";
import { counted } from "../core/text/quantity.ts";
import { note } from "./display/output.ts";
import { WorkProgress } from "./display/work-progress.ts";
import { printPublished, publishedSchema, showDifference } from "./display/published.ts";
import { readHostKeys } from "../fleet/host-keys.ts";
import type { Report } from "../core/formats/report.ts";
import { channelOption, expiresOption, supportOption } from "./options/change.ts";
import { hostKeysOption, reportKeyOption } from "./options/host-keys.ts";
import { reportsFrom } from "./options/reports.ts";
import { jsonOption } from "./options/json.ts";
import { utcOption } from "./options/utc.ts";
import { barrierRequest, rolloutRequest, withRollout } from "./options/rollout.ts";
import {
  memoryOption,
  memoryPathsOf,
  readSecretKey,
  signerKeyOption,
  signerOption,
  signersOf,
} from "./options/signers.ts";
import { natural, positive, reason, repeatable } from "./options/values.ts";
import { mirrorDirectory } from "./options/mirror-place.ts";
import { publicKeysOf } from "./options/public-keys.ts";

function definition() {
  return withRollout(publishing())
    .option("--draft <file>", "write the release here, for others to sign, not into force")
    .option("--unsigned <file>", "the same, signed by nobody: --key signs store paths only")
    .option("--from-draft <file>", "verify a signed draft and put it into force")
    .option("--threshold <count>", "how many keys must have signed the draft", positive)
    .addOption(utcOption())
    .addOption(jsonOption(publishedSchema));
}

/** The options before those of the rollout. */
function publishing() {
  return operatorCommand("publish", "build, pack, sign and write a release")
    .requiredOption("-m, --mirror <directory>", "the mirror's directory; made if it is not there")
    .addOption(repeatable("-k, --key <file>", "secret key"))
    .addOption(repeatable("--store-key <file>", "secret key for store paths", "the keys"))
    .addOption(signerOption())
    .addOption(signerKeyOption())
    .addOption(memoryOption())
    .addOption(repeatable("-p, --public-key <key>", "a key of the current release or draft"))
    .addOption(
      repeatable(
        "--host <name=source>",
        "a host and its system: /nix/store/…, FILE.nix, FILE.nix#ATTRIBUTE or FLAKE#ATTRIBUTE",
      ),
    )
    .addOption(
      repeatable("--flake <flake>", "all nixosConfigurations of a flake, or the one of FLAKE#NAME"),
    )
    .option("--hosts <file>", "hosts from a JSON or Nix file, or from FLAKE#ATTRIBUTE")
    .addOption(
      repeatable(
        "--only <name>",
        "of --flake and --hosts, only hosts that this pattern fits",
        "all",
      ),
    )
    .addOption(repeatable("--except <name>", "without the hosts that this pattern fits"))
    .option(
      "--keep-going",
      "publish the others if hosts fail to build, and these as they were (exit code 12)",
    )
    .option(
      "--eval-memory <gibibytes>",
      "memory for the evaluation of hosts (default: half of the machine's)",
      positive,
    )
    .addOption(repeatable("--group <host=groups>", "groups of a host, for the rollout"))
    .addOption(channelOption())
    .addOption(
      new Option("--mode <mode>", "what hosts do with it")
        .choices(ACTIVATION_MODES)
        .default("switch" as const),
    )
    .addOption(expiresOption())
    .addOption(supportOption())
    .addOption(
      repeatable(
        "--reports <path>",
        "signed reports of hosts, or a directory of them: say which hosts could not follow",
      ),
    )
    .addOption(reportKeyOption())
    .addOption(hostKeysOption())
    .addOption(
      new Option("--compression <name>", "of the NARs")
        .choices(COMPRESSIONS)
        .default("zstd" as const),
    )
    .option("--level <number>", "of the compression: zstd 1 to 19, xz 0 to 9", natural)
    .option("--whole", "a self-contained archive for each system, sharing nothing with others")
    .option("--deltas <count>", "make deltas against this many earlier releases", natural, 0)
    .addOption(
      repeatable(
        "--allow-secrets <name>",
        "a store path without its hash, and optionally a file in it: its private keys may be published",
      ),
    )
    .addOption(
      repeatable(
        "--specialisation <host=name>",
        "the specialisation of its system that a host runs",
      ),
    )
    .addOption(
      repeatable("--allow-without-agent <host>", "a host whose system may have no nixos-pull"),
    )
    .addOption(
      repeatable(
        "--allow-platform <host>",
        "a host whose system may be for another platform than the current release has for it",
      ),
    )
    .option("--cache <directory>", "keep the compressed NARs here for the next publish")
    .option("--sequence <number>", "sequence number instead of the next one", positive)
    .option("--keep-hosts", "keep hosts of the current release that are not named")
    .option("--refresh", "the current release again, with a new expiry; nothing is built")
    .option(
      "--new-epoch <reason>",
      "restart the numbering, after one that was driven too high",
      reason,
    )
    .option("--epoch <number>", "number of the new epoch instead of the next one", positive);
}

type Options = OptionsOf<typeof definition>;

export const publishCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((options) => {
    finish(publish(options, signal));
  });

/** `nixos-pull publish`: build, copy, pack, sign, write; or the last step of these alone. */
async function publish(options: Options, signal: AbortSignal): CommandResult {
  if (options.fromDraft !== undefined) return fromDraft(options, options.fromDraft);
  refuseContradictions(options);
  const { unsigned } = options;
  const rollout = rolloutRequest(options);
  const signers = await signersOf(options, signal);
  const storeKeys = await Promise.all(
    (options.storeKey.length > 0 ? options.storeKey : options.key).map(readSecretKey),
  );
  const progress = new WorkProgress();
  const onProgress = (event: PublishProgress): void => {
    showProgress(event, progress);
  };
  const { release: published, ...others } = await publishRelease({
    hosts: options.host.map(parseHostOption),
    readHosts: await hostReader(options, signal, onProgress),
    groups: parseGroups(options.group),
    specialisations: parseSpecialisations(options.specialisation),
    keepGoing: options.keepGoing ?? false,
    mirror: mirrorDirectory(options.mirror),
    channel: options.channel,
    signers: unsigned === undefined ? signers : [],
    storeKeys,
    publicKeys: [
      ...publicKeysOf("--public-key", options.publicKey),
      ...(unsigned === undefined ? [] : signers.map(({ publicKey }) => publicKey)),
    ],
    refresh: options.refresh ?? false,
    newEpoch:
      options.newEpoch === undefined
        ? undefined
        : { reason: options.newEpoch, number: options.epoch },
    draft: unsigned ?? options.draft,
    mode: options.mode,
    expiresInMs: options.expires,
    supportMs: options.support,
    reports: await hostReports(options),
    compression: options.compression,
    level: levelOf(options),
    whole: options.whole ?? false,
    deltas: options.deltas,
    cache: options.cache === undefined ? undefined : resolve(options.cache),
    sequence: options.sequence,
    keepHosts: options.keepHosts ?? false,
    rollout,
    barrier: barrierRequest(options),
    allowSecrets: options.allowSecrets.map(parseAllowedSecret),
    allowWithoutAgent: options.allowWithoutAgent,
    allowPlatform: options.allowPlatform,
    clock: systemClock,
    memory: await memoryPathsOf({
      memory: options.memory,
      keys: options.key.length > 0 ? options.key : options.storeKey,
    }),
    signal,
    onProgress,
    onDifference: (difference) => {
      progress.clear();
      showDifference(options)(difference);
    },
    onWarning: (message) => {
      onProgress({ phase: "warning", message });
    },
  });
  progress.clear();
  printPublished(published, options, others);
  // The release is in force or drafted, and something is wrong all the same.
  return others.failed.length > 0 ? EXIT.keptGoing : EXIT.ok;
}

/** What hosts said last, by the keys that the operator gives for them. */
async function hostReports({ reports, keys, reportKey }: Options): Promise<Report[]> {
  const isGiven = keys.length > 0 || reportKey.length > 0;
  const known = isGiven ? await readHostKeys(keys, reportKey) : null;
  return reportsFrom(reports, known, "--reports");
}

/** Throws USAGE for options that mean nothing together. */
function refuseContradictions({ epoch, newEpoch, unsigned, draft }: Options): void {
  if (epoch !== undefined && newEpoch === undefined) {
    throw new PullError("USAGE", "expected --new-epoch REASON with --epoch");
  }
  if (unsigned !== undefined && draft !== undefined) {
    throw new PullError("USAGE", "expected --unsigned FILE or --draft FILE, not both");
  }
}

/**
 * Reads the hosts of `--flake` and `--hosts`; undefined without them. Throws CONFIG_NOT_FOUND,
 * CONFIG_INVALID, USAGE.
 */
async function hostReader(
  { flake, hosts, only, except, evalMemory }: Options,
  signal: AbortSignal,
  onProgress: (event: PublishProgress) => void,
): Promise<PublishRequest["readHosts"]> {
  const sources = [
    ...flake.map(parseFlakeOption),
    ...(hosts === undefined ? [] : [parseHostsSource(hosts)]),
  ];
  if (sources.length === 0) {
    if (only.length === 0 && except.length === 0) return undefined;
    throw new PullError("USAGE", "expected --flake or --hosts with --only and --except");
  }
  await expectHostsSources(sources);
  return (onNames) =>
    readHosts(sources, {
      ...{ signal, onNames, filter: { only, except } },
      onLine: (line) => {
        onProgress({ phase: "nix", line });
      },
      memory: evalMemory && evalMemory * 1024 ** 3,
      onEvaluate: (hostnames, done, of) => {
        onProgress({ phase: "evaluate", hostnames, done, of });
      },
      onLeftOut: (names) => {
        const message = `not published, since release.publish is false there: ${names.join(", ")}`;
        onProgress({ phase: "warning", message });
      },
    });
}

/** The specialisations that the command line gives hosts, by hostname. Throws USAGE. */
function parseSpecialisations(options: readonly string[]): Map<string, string> {
  return new Map(
    options.map((text): [string, string] => {
      const { hostname, value } = parseAssignment(text, "--specialisation", "NAME");
      const name = specialisationSchema.safeParse(value);
      if (name.success) return [hostname, name.data];
      throw new PullError(
        "USAGE",
        `--specialisation: expected HOST=NAME, found ${JSON.stringify(text)}`,
      );
    }),
  );
}

/** The level of compression, if the program has such a level. Throws USAGE. */
function levelOf({ compression, level }: Options): number | undefined {
  if (level === undefined) return undefined;
  const range = compression === "none" ? null : COMPRESSION_LEVELS[compression];
  if (range && level >= range.min && level <= range.max) return level;
  throw new PullError(
    "USAGE",
    range
      ? `--level: expected ${range.min} to ${range.max} for ${compression}, found ${level}`
      : "--level: expected --compression zstd or xz with it, found none",
  );
}

/** `publish --from-draft`: puts a release into force that was signed elsewhere. */
async function fromDraft(options: Options, draft: string): Promise<number> {
  const publicKeys = publicKeysOf("--public-key", options.publicKey);
  if (publicKeys.length === 0) {
    throw new PullError("USAGE", "expected the hosts' --public-key: the draft is verified first");
  }
  const threshold = options.threshold ?? 1;
  const published = await publishDraft({
    mirror: mirrorDirectory(options.mirror),
    draft,
    trust: { publicKeys, threshold },
    clock: systemClock,
    memory: await memoryPathsOf({ memory: options.memory, keys: options.key }),
    onDifference: showDifference(options),
    onWarning: (message) => {
      note(`nixos-pull: ${message}`);
    },
  });
  printPublished(published, options);
  return EXIT.ok;
}

/** Hosts beyond this number are only counted. */
const MAX_NAMES = 3;

function someOf(hostnames: readonly string[]): string {
  const more = hostnames.length - MAX_NAMES;
  return hostnames.slice(0, MAX_NAMES).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

function describeEvaluation({
  hostnames,
  done,
  of,
}: PublishProgress & { phase: "evaluate" }): string {
  return `${hostnames.length > 0 ? someOf(hostnames) : "hosts"} (${done} of ${of} done)`;
}

function describeBuild({ hostnames, at, of }: PublishProgress & { phase: "build" }): string {
  const names = someOf(hostnames);
  const last = at + hostnames.length;
  return `${names} (${hostnames.length > 1 ? `${at + 1} to ${last}` : last} of ${of})`;
}

function showProgress(event: PublishProgress, progress: WorkProgress): void {
  switch (event.phase) {
    case "build":
      progress.clear();
      note(`building ${describeBuild(event)}`);
      break;
    case "evaluate":
      progress.step(`evaluating ${describeEvaluation(event)}`);
      break;
    case "compress": {
      const { done, of, bytes, ofBytes } = event;
      const count = `${done} of ${counted(of, "path")}`;
      progress.hear(event.phase, { what: "compressing", count, done: bytes, of: ofBytes });
      break;
    }
    case "delta":
      progress.step(`making deltas: ${event.done} of ${event.of}`);
      break;
    case "pack": {
      const what = `packing ${event.hostname}`;
      progress.hear(event.phase, { what, done: event.bytes, of: event.ofBytes });
      break;
    }
    case "nix":
      progress.aside(event.line);
      break;
    case "warning":
      progress.clear();
      note(`nixos-pull: ${event.message}`);
      break;
    default:
      event satisfies never;
  }
}
