import * as z from "zod";
import { EXIT } from "../../core/errors.ts";
import { openEnvelope } from "../../core/formats/envelope.ts";
import {
  activationOf,
  comparePositions,
  describePosition,
  manifestSchema,
  positionOf,
  rolloutSchema,
  type HostEntry,
  type Manifest,
  type Position,
} from "../../core/formats/manifest.ts";
import { sha256Hex } from "../../core/formats/sha256.ts";
import { turnOf } from "../../core/release/rollout.ts";
import { systemClock } from "../../effects/host/clock.ts";
import { RootDirectory } from "../../effects/files/root-directory.ts";
import { expectChannel } from "../../operator/mirror/channels.ts";
import { manifestFile } from "../../operator/mirror/mirror-reader.ts";
import { RetainedReleases } from "../../operator/mirror/retained-releases.ts";
import { readEnvelopeFile } from "../../operator/channel/sign-release.ts";
import type { CommandMaker, CommandResult, OptionsOf } from "../command.ts";
import { describeSystem } from "../display/finding.ts";
import {
  countSchema,
  printJson,
  releaseShape,
  runSystemSchema,
  timeSchema,
  releaseJson,
} from "../display/json.ts";
import { counted } from "../../core/text/quantity.ts";
import { shortSystemNames } from "../../core/text/system-names.ts";
import { Times } from "../../core/text/times.ts";
import { screenOf, show, styled, table, type Line, type Text } from "../display/screen.ts";
import { channelOption, releaseCommand } from "../options/change.ts";
import { mirrorDirectory } from "../options/mirror-place.ts";
import { publicKeysOf } from "../options/public-keys.ts";

/** When a host's turn is: at a time, or not until somebody does something. */
type Turn = { readonly at: string } | { readonly waits: string };

/** What `release show --json` prints. */
const showSchema = z.strictObject({
  ...releaseShape,
  signedBy: releaseShape.signedBy.nullable().describe("null if no key was given to verify it with"),
  epochReason: z.string().nullable().describe("why the numbering was restarted last"),
  barrier: manifestSchema.shape.barrier.unwrap().nullable(),
  rollout: rolloutSchema.nullable(),
  retained: z
    .array(z.strictObject({ epoch: countSchema, sequence: z.int().positive() }))
    .describe("earlier releases that the mirror retains, newest first: `release abort --to`"),
  hosts: z.array(
    z.strictObject({
      ...runSystemSchema.shape,
      groups: z.array(z.string()),
      turn: z
        .union([z.strictObject({ at: timeSchema }), z.strictObject({ waits: z.string() })])
        .describe("when the host may begin, or what it waits for"),
    }),
  ),
});

function definition() {
  return releaseCommand(
    "show",
    "show the release in force, and when each host's turn comes",
    showSchema,
  ).addOption(channelOption());
}

export const showCommand: CommandMaker = ({ finish }) =>
  definition().action((options) => {
    finish(showRelease(options));
  });

/** `nixos-pull release show`: the release in force, and when each host's turn comes. */
async function showRelease(options: OptionsOf<typeof definition>): CommandResult {
  const root = new RootDirectory(mirrorDirectory(options.mirror));
  await expectChannel(root, options.channel);
  const file = { root, name: manifestFile(options.channel) };
  const { bytes, envelope, manifest } = await readEnvelopeFile(file);
  const digest = sha256Hex(Buffer.from(envelope.payload, "base64"));
  const publicKeys = publicKeysOf("--public-key", options.publicKey);
  // Without a key nothing is verified, and the output says so.
  const signedBy =
    publicKeys.length > 0 ? openEnvelope(bytes, { publicKeys, threshold: 1 }).signedBy : null;
  const retained = await retainedBefore(root, manifest);
  const now = systemClock.now();
  const turns = Object.entries(manifest.hosts).map(
    ([hostname, entry]) => [hostname, entry, turnIn(manifest, hostname, entry)] as const,
  );
  const come = turns.filter(([, , turn]) => "at" in turn && Date.parse(turn.at) <= now.getTime());
  if (options.json) {
    const { signedBy: _, ...release } = releaseJson({ manifest, digest, signedBy: [] });
    printJson(showSchema, {
      ...{ ...release, signedBy },
      epochReason: manifest.epoch?.reason ?? null,
      barrier: manifest.barrier ?? null,
      rollout: manifest.rollout ?? null,
      retained,
      hosts: turns.map(([hostname, entry, turn]) => ({
        ...{ hostname, toplevel: entry.toplevel, mode: activationOf(manifest, entry).mode },
        specialisation: activationOf(manifest, entry).specialisation ?? null,
        ...{ groups: entry.groups ?? [], turn },
      })),
    });
    return EXIT.ok;
  }
  const times = new Times({ now, utc: options.utc });
  const claimed = envelope.signatures.map(({ keyid }) => keyid ?? "unnamed");
  show([
    ...describeRelease(manifest, {
      ...{ signedBy, claimed, times, retained },
      come: `the turn of ${come.length} of ${counted(turns.length, "host")} has come`,
    }),
    "",
    ...describeTurns(manifest, turns, times),
  ]);
  return EXIT.ok;
}

/** What is shown of a release as a whole. */
interface ReleaseWords {
  readonly signedBy: readonly string[] | null;
  /** The keys that its signatures name. */
  readonly claimed: readonly string[];
  readonly times: Times;
  readonly retained: readonly Position[];
  /** How far the rollout is. */
  readonly come: string;
}

/** The release in force: what hosts do with it now, who signed it, and what there is to go back to. */
function describeRelease(
  manifest: Manifest,
  { signedBy, claimed, times, retained, come }: ReleaseWords,
): Line[] {
  const { channel, createdAt, expiresAt, rollout, barrier, epoch } = manifest;
  const isExpired = Date.parse(expiresAt) <= times.now.getTime();
  const style = isExpired ? "bad" : rollout?.paused ? "waiting" : "good";
  const name = `Release ${describePosition(positionOf(manifest))} of ${channel}`;
  return [
    [
      styled(style, "●"),
      " ",
      styled("strong", name),
      isExpired
        ? styled("bad", ` EXPIRED ${times.both(expiresAt)}`)
        : ` is in force, made ${times.both(createdAt)}, good until ${times.clock(expiresAt)}`,
    ],
    signedBy
      ? `  signed by ${signedBy.join(", ")}`
      : [
          styled("waiting", "  signatures not verified"),
          `: ${claimed.join(", ")}; --public-key verifies them`,
        ],
    ...(epoch ? [`  epoch ${epoch.number}, begun because: ${epoch.reason}`] : []),
    ...(barrier ? [`  Hosts below release ${barrier.sequence} must reach that one first.`] : []),
    ...(rollout?.paused
      ? [
          [
            styled("waiting", `  PAUSED since ${times.both(rollout.paused.since)}`),
            `: ${rollout.paused.reason}`,
          ],
        ]
      : []),
    ...(rollout ? [`  rollout ${startWords(rollout.start, times)}: ${come}`] : []),
    retained.length > 0
      ? styled("dim", `  retained, for release abort --to: ${namesOf(retained)}`)
      : styled("dim", "  no earlier release is retained: abort has nothing to go back to"),
  ];
}

function startWords(start: string, times: Times): string {
  const verb = Date.parse(start) <= times.now.getTime() ? "began" : "begins";
  return `${verb} ${times.both(start)}`;
}

/** More are only counted. */
const MAX_RETAINED = 12;

function namesOf(retained: readonly Position[]): string {
  const more = retained.length - MAX_RETAINED;
  const names = retained.slice(0, MAX_RETAINED).map(describePosition).join(", ");
  return more > 0 ? `${names} and ${more} older ones` : names;
}

/** One row for each host: when its turn is, and what it gets. */
function describeTurns(
  manifest: Manifest,
  turns: readonly (readonly [string, HostEntry, Turn])[],
  times: Times,
): Line[] {
  const nameOf = shortSystemNames(turns.map(([, { toplevel }]) => toplevel));
  const rows = turns.map(([hostname, entry, turn]): Text[] => {
    const activation = activationOf(manifest, entry);
    return [
      styled("strong", hostname),
      describeSystem({ ...activation, toplevel: nameOf(entry.toplevel) }),
      activation.mode,
      turnWords(turn, times),
      (entry.groups ?? []).map((group) => `@${group}`).join(" "),
    ];
  });
  const head = ["HOST", "SYSTEM", "MODE", "TURN", "GROUPS"].map((cell) => styled("dim", cell));
  return table([head, ...rows], screenOf(process.stdout));
}

function turnWords(turn: Turn, times: Times): Text {
  if ("waits" in turn) return styled("waiting", turn.waits);
  return Date.parse(turn.at) <= times.now.getTime()
    ? styled("good", "now")
    : styled("waiting", times.both(turn.at));
}

/** The earlier releases of the channel that the mirror retains, newest first. */
async function retainedBefore(root: RootDirectory, manifest: Manifest): Promise<Position[]> {
  const all = await new RetainedReleases(root).releases(manifest.channel);
  return all
    .map(({ position }) => position)
    .filter((position) => comparePositions(position, positionOf(manifest)) < 0);
}

function turnIn({ rollout, createdAt }: Manifest, hostname: string, entry: HostEntry): Turn {
  if (rollout?.paused) return { waits: "paused" };
  if (typeof entry.turn === "object") return { waits: `held: ${entry.turn.held}` };
  if (!rollout || entry.turn === "now") return { at: createdAt };
  const at = turnOf(rollout, hostname, entry.groups);
  return at === null ? { waits: "no wave yet" } : { at: new Date(at).toISOString() };
}
