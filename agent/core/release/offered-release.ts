import * as z from "zod";
import { FEATURES, lackedOf } from "../formats/compatibility.ts";
import { openEnvelope, unverifiedPayload, type TrustPolicy } from "../formats/envelope.ts";
import { BUILD } from "../build.ts";
import { PullError } from "../errors.ts";
import {
  comparePositions,
  describePosition,
  entryOf,
  hostManifestSchema,
  manifestFrameSchema,
  manifestJson,
  manifestSchema,
  parsedAs,
  positionOf,
  reasonSchema,
  timeSchema,
  type HostEntry,
  type Manifest,
  type SignedFrame,
  type SignedManifest,
  type SupportedRelease,
} from "../formats/manifest.ts";
import { sha256Hex } from "../formats/sha256.ts";
import { placeOf } from "./release-history.ts";

/**
 * A release as a host reads it: whole if its agent understands all that the release requires, else
 * its frame, which says where it stands and what such an agent may follow instead.
 */
export type OfferedRelease =
  | { readonly kind: "understood"; readonly signed: SignedManifest }
  | {
      readonly kind: "ahead";
      readonly signed: SignedFrame;
      /** Features that it requires and this agent lacks. */
      readonly lacks: readonly string[];
      readonly ordersFor: (hostname: string) => StandingOrders;
    };

/** What a release says about whether a host may begin, as far as an older agent can read it. */
export interface StandingOrders {
  /** Whether it names the host; null if it names hosts in a way that is not known here. */
  readonly namesHost: boolean | null;
  readonly turn?: HostEntry["turn"];
  readonly paused?: NonNullable<Manifest["rollout"]>["paused"];
}

/**
 * Verifies an envelope and reads its release as a host does: keys that it does not know are left
 * out, and nothing but the frame is read of a release that requires what is not `known`. Throws
 * the trust errors.
 */
export function readOffer(
  bytes: Uint8Array,
  trust: TrustPolicy,
  known: readonly string[] = FEATURES,
): OfferedRelease {
  const { payload, digest, signedBy } = openEnvelope(bytes, trust);
  const json = manifestJson(payload);
  const { requires } = parsedAs(requirementSchema, json);
  const lacks = lackedOf(requires, known);
  if (lacks.length === 0) {
    const manifest = parsedAs(hostManifestSchema, json);
    return { kind: "understood", signed: { manifest, digest, signedBy } };
  }
  const manifest = parsedAs(manifestFrameSchema, json);
  return {
    kind: "ahead",
    signed: { manifest, digest, signedBy },
    lacks,
    ordersFor: ordersIn(json),
  };
}

const requirementSchema = z.object({ requires: manifestSchema.shape.requires });

/** Keys of 0.1.0 that a later version may write in another form; then they are not read. */
const ordersSchema = z.object({
  rollout: z
    .object({ paused: z.object({ reason: reasonSchema, since: timeSchema }) })
    .optional()
    .catch(undefined),
  hosts: z.record(z.string(), z.unknown()).optional().catch(undefined),
});
const heldSchema = z.object({ turn: z.object({ held: reasonSchema }) });

function ordersIn(json: unknown): (hostname: string) => StandingOrders {
  const { rollout, hosts } = parsedAs(ordersSchema, json);
  const paused = rollout && { paused: rollout.paused };
  return (hostname) => {
    if (!hosts) return { namesHost: null, ...paused };
    if (!Object.hasOwn(hosts, hostname)) return { namesHost: false, ...paused };
    const held = heldSchema.safeParse(hosts[hostname]);
    return { namesHost: true, ...(held.success && { turn: held.data.turn }), ...paused };
  };
}

/** The release on the way out that an agent may follow now, or null. */
export function wayOutOf(
  { supported = [] }: Pick<SignedFrame["manifest"], "supported">,
  known: readonly string[],
  now: Date | null,
): SupportedRelease | null {
  const may = ({ requires, until }: SupportedRelease): boolean =>
    lackedOf(requires, known).length === 0 && (now === null || Date.parse(until) > now.getTime());
  return supported.find(may) ?? null;
}

/**
 * Reads a release on the way out. A newer release, which was verified and accepted, vouches for it
 * by its digest, so that nothing else is read, whatever a mirror has, and its own expiry and the
 * keys of its time do not matter. Throws the trust errors.
 */
export function readWayOut(
  bytes: Uint8Array,
  ahead: OfferedRelease & { readonly kind: "ahead" },
  named: SupportedRelease,
  { hostname, known }: { readonly hostname: string; readonly known: readonly string[] },
): SignedManifest {
  const { digest } = named;
  const position = placeOf(named);
  const name = `release ${describePosition(position)}`;
  const payload = payloadOf(bytes);
  if (payload === null || sha256Hex(payload) !== digest) {
    // Another mirror may do better.
    const found = payload === null ? "no envelope" : sha256Hex(payload);
    throw new PullError(
      "MIRROR_STATUS",
      `${name}: expected the release with digest ${digest}, found ${found}`,
    );
  }
  const manifest = parsedAs(hostManifestSchema, manifestJson(payload));
  const { channel } = ahead.signed.manifest;
  const isNamed =
    manifest.channel === channel && comparePositions(positionOf(manifest), position) === 0;
  if (!isNamed || lackedOf(manifest.requires, known).length > 0) {
    throw new PullError(
      "MANIFEST_INVALID",
      `${name} of ${channel} is not what the newer release says of it`,
    );
  }
  const orders = ahead.ordersFor(hostname);
  return {
    manifest: withOrders(manifest, hostname, orders),
    digest,
    signedBy: ahead.signed.signedBy,
  };
}

/** The payload of an envelope, not verified; null if it is none. */
function payloadOf(bytes: Uint8Array): Uint8Array | null {
  try {
    return unverifiedPayload(bytes).payload;
  } catch (error) {
    if (error instanceof PullError) return null;
    throw error;
  }
}

/**
 * The older release, with what the newer one says about beginning. What it said itself was about
 * the time when it was the newest: a rollout that never came to all hosts would strand the rest.
 */
function withOrders(
  { rollout: _, ...manifest }: Manifest,
  hostname: string,
  { paused, turn }: StandingOrders,
): Manifest {
  const rollout = paused && { start: manifest.createdAt, salt: manifest.channel, paused };
  const entry = entryOf(manifest, hostname);
  if (!entry) return { ...manifest, ...(rollout && { rollout }) };
  const { turn: __, ...own } = entry;
  const hosts = { ...manifest.hosts, [hostname]: { ...own, ...(turn && { turn }) } };
  return { ...manifest, ...(rollout && { rollout }), hosts };
}

/** What is said on a host whose agent lacks what a release requires. `why` says what it does. */
export function agentTooOld(
  { signed, lacks }: OfferedRelease & { readonly kind: "ahead" },
  why: string,
): PullError {
  const { manifest } = signed;
  const features = lacks.slice(0, 5).join(", ") + (lacks.length > 5 ? ", …" : "");
  return new PullError(
    "AGENT_TOO_OLD",
    `release ${describePosition(positionOf(manifest))} of ${manifest.channel} requires ${features}, ` +
      `which this agent (${BUILD.version}) lacks; ${why}`,
  );
}
