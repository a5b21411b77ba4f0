import { stat } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { resolve } from "node:path";
import { Option } from "@commander-js/extra-typings";
import * as z from "zod";
import { ERROR_CODES, EXIT, PullError } from "../core/errors.ts";
import {
  DISTRUST_REASONS,
  STANDINGS,
  TROUBLED,
  fleetView,
  type Fleet,
} from "../core/fleet/fleet.ts";
import { openEnum } from "../core/formats/compatibility.ts";
import { fleetMetrics } from "../core/metrics/fleet-metrics.ts";
import type { TrustPolicy } from "../core/formats/envelope.ts";
import { channelSchema, hostnameSchema, type SignedManifest } from "../core/formats/manifest.ts";
import { readOffer, type OfferedRelease } from "../core/release/offered-release.ts";
import { readOfferedChannel } from "../core/release/read-channel.ts";
import { parseNetworkSettings, trustPolicyOf, type NetworkSettings } from "../core/settings.ts";
import { parseMirrorAddress } from "../core/formats/mirror-address.ts";
import { reportSchema } from "../core/formats/report.ts";
import { Times } from "../core/text/times.ts";
import { systemClock } from "../effects/host/clock.ts";
import { writeDurably } from "../effects/files/durable-file.ts";
import { Transport } from "../effects/mirror/transport.ts";
import { parallelMap } from "../effects/process/parallel-map.ts";
import { readHostKeys } from "../fleet/host-keys.ts";
import { EMPTY_MEMORY, readFleetMemory, writeFleetMemory } from "../fleet/memory.ts";
import { fleetPage } from "../fleet/page/page.ts";
import { believeReports } from "../fleet/read-fleet.ts";
import { readReportSource } from "../fleet/report-source.ts";
import { fileNamed } from "../effects/files/root-directory.ts";
import { readSignedFile } from "../operator/channel/sign-release.ts";
import {
  operatorCommand,
  type CommandMaker,
  type CommandResult,
  type OptionsOf,
} from "./command.ts";
import { configOption } from "./options/configuration.ts";
import { bytesSchema, countSchema, printJson, timeSchema } from "./display/json.ts";
import { describeDistrust, fleetLines } from "./display/fleet.ts";
import { note } from "./display/output.ts";
import { screenOf, show as showLines } from "./display/screen.ts";
import { hostKeysOption, reportKeyOption } from "./options/host-keys.ts";
import { jsonOption } from "./options/json.ts";
import { utcOption } from "./options/utc.ts";
import { expectFileFor } from "./options/output-file.ts";
import { mirrorAt, mirrorPlace } from "./options/mirror-place.ts";
import { hostSettings, settingsFor, thresholdOption } from "./options/trust.ts";
import { duration, repeatable, repeatableChannel } from "./options/values.ts";

const positionSchema = z.strictObject({ epoch: countSchema, sequence: z.int().positive() });

/** What `fleet --json` prints: hosts worst first, then by name. Null stands for what is not known. */
const fleetSchema = z.strictObject({
  at: timeSchema,
  hosts: z.array(
    z.strictObject({
      hostname: hostnameSchema,
      channel: channelSchema.nullable(),
      standing: z.enum(STANDINGS),
      note: z.string().nullable().describe("why, for people"),
      code: openEnum([...ERROR_CODES, ...DISTRUST_REASONS]).nullable(),
      release: z.int().positive().nullable().describe("the release that it last switched to"),
      onTarget: z.boolean().nullable(),
      state: z.string().nullable(),
      lastSeen: timeSchema.nullable(),
      rebootNeeded: z.boolean(),
      drifted: z.boolean(),
      disk: z.strictObject({ free: bytesSchema, total: bytesSchema }).nullable(),
      committedAt: timeSchema.nullable(),
      waits: reportSchema.shape.waits.unwrap(),
      failure: reportSchema.shape.failure.unwrap().nullable(),
      agentVersion: z.string().nullable(),
    }),
  ),
  targets: z.array(
    z.strictObject({
      channel: channelSchema,
      position: positionSchema,
      signed: z.boolean().describe("false if no manifest says so, only hosts do"),
      createdAt: timeSchema.nullable(),
      expiresAt: timeSchema.nullable(),
      expired: z.boolean(),
      hosts: countSchema,
      onTarget: countSchema,
      committed: z.array(timeSchema).describe("when each of those switched to it, oldest first"),
    }),
  ),
  counts: z.record(z.enum(STANDINGS), countSchema),
  codes: z.array(z.strictObject({ code: z.string(), hosts: countSchema })),
});

function definition() {
  return operatorCommand("fleet", "show what all hosts report, beside what they should be")
    .argument(
      "<place...>",
      "directories or addresses with reports; a directory may have them in its directory reports",
    )
    .addOption(hostKeysOption())
    .addOption(reportKeyOption())
    .option("--memory <file>", "remember each host's newest report here, and refuse older ones")
    .option(
      "--trust-new",
      "trust hosts that the memory does not know yet, and pin their keys there",
    )
    .addOption(
      repeatable(
        "-m, --manifest <place>",
        "what hosts should be: a manifest, or a mirror that has it",
      ),
    )
    .addOption(repeatableChannel("channel of a mirror", "stable"))
    .addOption(
      repeatable("-p, --public-key <key>", "trusted key of manifests", "the configuration's"),
    )
    .addOption(thresholdOption())
    .addOption(configOption("keys of manifests, TLS and credentials from here"))
    .option("--ca <file>", "certificate authorities of the servers, PEM (default: the system's)")
    .option("--cert <file>", "client certificate for them, PEM")
    .option("--cert-key <file>", "its private key, PEM")
    .option("--user-file <file>", "file with USER:PASSWORD for the server")
    .option("--token-file <file>", "file with a bearer token for the server")
    .addOption(
      new Option("--silent-after <duration>", "how old a host's last report may be")
        .argParser(duration)
        .default(duration("1d"), "1d"),
    )
    .addOption(utcOption())
    .addOption(jsonOption(fleetSchema))
    .option("--html <file>", "write a page as well")
    .option("--prometheus <file>", "write metrics as well, for a textfile collector")
    .option("--exit-code", "exit with 21 if a person should look at a host, or if there is none")
    .addOption(
      new Option("-w, --watch <duration>", "look again each time this has passed").argParser(
        duration,
      ),
    );
}

type Options = OptionsOf<typeof definition>;

export const fleetCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((places, options) => {
    finish(fleet(places, options, signal));
  });

/** `nixos-pull fleet PLACE…`: what all hosts report, beside what they should be. */
async function fleet(
  places: readonly string[],
  options: Options,
  signal: AbortSignal,
): CommandResult {
  if (options.trustNew && options.memory === undefined) {
    throw new PullError("USAGE", "--trust-new pins keys in a file: expected --memory FILE with it");
  }
  await expectFileFor("--html", options.html);
  await expectFileFor("--prometheus", options.prometheus);
  let view: Fleet;
  do {
    view = await readFleet(places, options, signal);
    await show(view, options);
    if (options.watch !== undefined) {
      await sleep(options.watch, undefined, { signal }).catch(() => undefined);
    }
  } while (options.watch !== undefined && !signal.aborted);
  const troubled = view.hosts.some(({ standing }) => TROUBLED.has(standing));
  const expired = view.targets.some((target) => target.expired);
  // A wrong directory must not look like a fleet that is well.
  const isEmpty = view.hosts.length === 0;
  return options.exitCode && (troubled || expired || isEmpty) ? EXIT.fleetTroubled : EXIT.ok;
}

async function readFleet(
  places: readonly string[],
  options: Options,
  signal: AbortSignal,
): Promise<Fleet> {
  const network = await networkFor(places, options);
  const manifests = await readManifests(options, network, signal);
  const keys = await readHostKeys(options.keys, options.reportKey);
  const memory =
    options.memory === undefined ? EMPTY_MEMORY : await readFleetMemory(options.memory);
  const named = new Set([
    ...manifests.flatMap(({ manifest }) => Object.keys(manifest.hosts)),
    ...keys.keys(),
    ...Object.keys(memory.hosts),
  ]);
  if (named.size === 0 && places.some((place) => parseMirrorAddress(place)?.kind === "web")) {
    note(
      "nixos-pull: a server has no list of its hosts, so none was asked for; --manifest, --keys or " +
        "--memory name them",
    );
  }
  const transport = new Transport(network);
  const found = [];
  try {
    for (const place of places) {
      const access = { transport, credential: network.credentials[place] };
      found.push(...(await readReportSource(place, named, access, signal)));
    }
  } finally {
    await transport.close();
  }
  const now = systemClock.now();
  const believed = believeReports(
    found,
    { keys, memory, trustNew: options.trustNew ?? false },
    now,
  );
  if (options.memory !== undefined) await writeFleetMemory(options.memory, believed.memory);
  for (const { hostname, key } of believed.pinned)
    note(`pinned the key of ${hostname}: ${key.text}`);
  for (const distrust of believed.refused) note(describeDistrust(distrust));
  const lastSeen = new Map(
    Object.entries(memory.hosts).flatMap(([host, { at }]) => (at === null ? [] : [[host, at]])),
  );
  const { reports, distrusted } = believed;
  return fleetView(
    { reports, distrusted, manifests, lastSeen },
    { now, silentAfter: options.silentAfter },
  );
}

async function show(view: Fleet, options: Options): Promise<void> {
  const { html, prometheus, json, watch } = options;
  if (html !== undefined) {
    const refresh = watch === undefined ? {} : { refreshSeconds: Math.ceil(watch / 1000) };
    await writeDurably(html, fleetPage(view, refresh), 0o644);
  }
  if (prometheus !== undefined) await writeDurably(prometheus, fleetMetrics(view), 0o644);
  if (json) printJson(fleetSchema, view);
  else {
    if (watch !== undefined && process.stdout.isTTY) process.stdout.write("\u001b[2J\u001b[H");
    const times = new Times({ now: new Date(view.at), utc: options.utc });
    showLines(fleetLines(view, times, screenOf(process.stdout)));
  }
}

/** The manifests of the channels, verified; an expired one still says what hosts should be. */
async function readManifests(
  options: Options,
  network: NetworkSettings,
  signal: AbortSignal,
): Promise<SignedManifest[]> {
  if (options.manifest.length === 0) return [];
  const settings = await settingsFor("file:///", { ...options, storeKey: [] });
  const threshold = options.threshold ?? settings.threshold;
  const trust = { ...trustPolicyOf(settings), threshold };
  const manifests = new Map<string, SignedManifest>();
  for (const place of options.manifest) {
    for (const offered of await manifestsAt(place, { trust, network, signal }, options)) {
      const { channel, sequence } = offered.signed.manifest;
      if (offered.kind === "understood") manifests.set(channel, offered.signed);
      else {
        const features = offered.lacks.join(", ");
        note(
          `release ${sequence} of ${channel} requires ${features}, which this nixos-pull does not ` +
            "understand: what its hosts should be is not known",
        );
      }
    }
  }
  return [...manifests.values()];
}

/** The manifest that a file is, or those of a mirror's channels. */
async function manifestsAt(
  place: string,
  { trust, network, signal }: { trust: TrustPolicy; network: NetworkSettings; signal: AbortSignal },
  { channel }: Options,
): Promise<OfferedRelease[]> {
  const isFile = await stat(place).then(
    (found) => found.isFile(),
    () => false,
  );
  if (isFile) return [readOffer((await readSignedFile(fileNamed(place))).bytes, trust)];
  const mirror = mirrorAt(mirrorPlace(place), network);
  return parallelMap(channel.length > 0 ? channel : ["stable"], (name) =>
    readOfferedChannel(mirror, name, trust, signal),
  );
}

/**
 * Limits, TLS and credentials: from the command line, from a configuration, or else the defaults.
 * A secret is for one server. Throws USAGE, CONFIG_INVALID.
 */
async function networkFor(places: readonly string[], options: Options): Promise<NetworkSettings> {
  const { ca: caFile, cert: certFile, certKey: keyFile, userFile, tokenFile } = options;
  if (userFile !== undefined && tokenFile !== undefined) {
    throw new PullError("USAGE", "expected --user-file or --token-file, found both");
  }
  const isOwn = [caFile, certFile, keyFile, userFile, tokenFile].some((it) => it !== undefined);
  const readsConfig = options.manifest.length > 0 && options.publicKey.length === 0;
  if (!isOwn && (options.config !== undefined || readsConfig)) return hostSettings(options);
  const servers = [...places, ...options.manifest]
    .map(parseMirrorAddress)
    .filter((address) => address?.kind === "web");
  const file = userFile ?? tokenFile;
  const origins = new Set(servers.map(({ url }) => url.origin));
  if (file !== undefined && origins.size !== 1) {
    throw new PullError(
      "USAGE",
      origins.size === 0
        ? `--${userFile === undefined ? "token" : "user"}-file: expected the address of a server, found none`
        : `a password or token is for one server, found ${origins.size}: ${[...origins].join(", ")}`,
    );
  }
  const type = userFile === undefined ? "bearer" : "basic";
  const pathOf = (path: string | undefined): string | undefined => path && resolve(path);
  return parseNetworkSettings({
    tls: { caFile: pathOf(caFile), certFile: pathOf(certFile), keyFile: pathOf(keyFile) },
    ...(file !== undefined && {
      credentials: Object.fromEntries(
        servers.map(({ text }) => [text, { type, file: resolve(file) }]),
      ),
    }),
  });
}
