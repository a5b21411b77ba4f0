import * as z from "zod";
import { EXIT } from "../../core/errors.ts";
import { openEnvelope } from "../../core/formats/envelope.ts";
import {
  activationOf,
  describePosition,
  manifestSchema,
  positionOf,
  rolloutSchema,
  type HostEntry,
  type Manifest,
} from "../../core/formats/manifest.ts";
import { sha256Hex } from "../../core/formats/sha256.ts";
import { turnOf } from "../../core/release/rollout.ts";
import { systemClock } from "../../effects/host/clock.ts";
import { RootDirectory } from "../../effects/files/root-directory.ts";
import { expectChannel } from "../../operator/mirror/channels.ts";
import { manifestFile } from "../../operator/mirror/mirror-reader.ts";
import { readEnvelopeFile } from "../../operator/channel/sign-release.ts";
import type { CommandMaker, CommandResult, OptionsOf } from "../command.ts";
import { describeSystem } from "../display/finding.ts";
import {
  printJson,
  releaseShape,
  runSystemSchema,
  timeSchema,
  releaseJson,
} from "../display/json.ts";
import { counted } from "../../core/text/quantity.ts";
import { formatTable, printLine } from "../display/output.ts";
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
    finish(show(options));
  });

/** `nixos-pull release show`: the release in force, and when each host's turn comes. */
async function show(options: OptionsOf<typeof definition>): CommandResult {
  const root = new RootDirectory(mirrorDirectory(options.mirror));
  await expectChannel(root, options.channel);
  const file = { root, name: manifestFile(options.channel) };
  const { bytes, envelope, manifest } = await readEnvelopeFile(file);
  const digest = sha256Hex(Buffer.from(envelope.payload, "base64"));
  const publicKeys = publicKeysOf("--public-key", options.publicKey);
  // Without a key nothing is verified, and the output says so.
  const signedBy =
    publicKeys.length > 0 ? openEnvelope(bytes, { publicKeys, threshold: 1 }).signedBy : null;
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
      hosts: turns.map(([hostname, entry, turn]) => ({
        ...{ hostname, toplevel: entry.toplevel, mode: activationOf(manifest, entry).mode },
        specialisation: activationOf(manifest, entry).specialisation ?? null,
        ...{ groups: entry.groups ?? [], turn },
      })),
    });
    return EXIT.ok;
  }
  const { channel, createdAt, expiresAt, rollout, barrier, epoch } = manifest;
  const claimed = envelope.signatures.map(({ keyid }) => keyid ?? "unnamed").join(", ");
  printLine(
    `Release ${describePosition(positionOf(manifest))} of ${channel}, ` +
      `${signedBy ? `signed by ${signedBy.join(", ")}` : `signatures not verified: ${claimed}`}, ` +
      `created ${createdAt}, good until ${expiresAt}`,
  );
  if (epoch) printLine(`Epoch ${epoch.number}, begun because: ${epoch.reason}`);
  if (barrier) printLine(`Hosts below release ${barrier.sequence} must reach that one first.`);
  if (rollout?.paused) {
    printLine(`PAUSED since ${rollout.paused.since}: ${rollout.paused.reason}`);
  }
  if (rollout) {
    printLine(
      `Rollout from ${rollout.start}: the turn of ${come.length} of ${counted(turns.length, "host")} has come.`,
    );
  }
  printLine(
    formatTable(
      turns.map(([hostname, entry, turn]) => [
        hostname,
        activationOf(manifest, entry).mode,
        (entry.groups ?? []).map((group) => `@${group}`).join(" "),
        "at" in turn ? turn.at : turn.waits,
        describeSystem({ ...activationOf(manifest, entry), toplevel: entry.toplevel }),
      ]),
    ),
  );
  return EXIT.ok;
}

function turnIn({ rollout, createdAt }: Manifest, hostname: string, entry: HostEntry): Turn {
  if (rollout?.paused) return { waits: "paused" };
  if (typeof entry.turn === "object") return { waits: `held: ${entry.turn.held}` };
  if (!rollout || entry.turn === "now") return { at: createdAt };
  const at = turnOf(rollout, hostname, entry.groups);
  return at === null ? { waits: "no wave yet" } : { at: new Date(at).toISOString() };
}
