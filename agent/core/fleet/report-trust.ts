import { parseEnvelope } from "../formats/envelope.ts";
import { PullError } from "../errors.ts";
import type { DistrustReason } from "./fleet.ts";
import { REPORT_PAYLOAD_TYPE, openReport, type Report } from "../formats/report.ts";
import { keyMaterial, parsePublicKey, type PublicKey } from "../formats/signing-key.ts";

/** The trusted keys of each host, by hostname: several while a key is being replaced. */
export type HostKeys = ReadonlyMap<string, readonly PublicKey[]>;

/** What is known of a host before its report is read. */
export interface KnownHost {
  /** The keys that count for it: usually one, none if the host is new. */
  readonly keys: readonly PublicKey[];
  /** When its newest report so far was made; an older one is a replay. */
  readonly at: string | null;
}

/** What a report came to. */
export type Belief =
  | { readonly kind: "believed"; readonly report: Report; readonly key: PublicKey }
  | { readonly kind: "distrusted"; readonly reason: DistrustReason; readonly message: string };

/**
 * Decides whether bytes are `host`'s report: signed by a key that is known for this very
 * host, in its own name, and no older than what it said before. Where no key is known and
 * `trustNew` says so, the key that the report itself names counts from now on.
 */
export function believeReport(
  host: string,
  bytes: Uint8Array,
  known: KnownHost,
  trustNew = false,
): Belief {
  const claimed = claimedKey(bytes);
  const keys = known.keys.length === 0 && trustNew && claimed ? [claimed] : known.keys;
  let failure: PullError | null = null;
  for (const key of keys) {
    try {
      return expectOwn(host, openReport(bytes, key), key, known);
    } catch (error) {
      if (!(error instanceof PullError)) throw error;
      failure = error;
    }
  }
  // Only to say what happened; nothing that it says is used.
  const other = claimed && opens(bytes, claimed) ? claimed : null;
  if (!failure) {
    return distrust(
      "KEY_UNKNOWN",
      other
        ? `no key is known for it; its report is signed with ${other.text}`
        : "no key is known for it, and its report names none that it is signed with",
    );
  }
  if (other && keys.every((key) => keyMaterial(key) !== keyMaterial(other))) {
    return distrust(
      "KEY_CHANGED",
      `expected the key ${keys.map(({ text }) => text).join(" or ")}, found one signed with ${other.text}: ` +
        "a new installation, a lost state directory, or somebody who pretends to be this host",
    );
  }
  return distrust("REPORT_INVALID", failure.message);
}

function expectOwn(host: string, report: Report, key: PublicKey, known: KnownHost): Belief {
  if (report.hostname !== host) {
    return distrust(
      "REPORT_INVALID",
      `expected a report by ${host}, found one by ${report.hostname}`,
    );
  }
  if (known.at !== null && Date.parse(report.at) < Date.parse(known.at)) {
    return distrust(
      "REPORT_REPLAYED",
      `expected a report no older than ${known.at}, found one of ${report.at}`,
    );
  }
  return { kind: "believed", report, key };
}

function distrust(reason: DistrustReason, message: string): Belief {
  return { kind: "distrusted", reason, message };
}

/** The key that a report says it is signed with, whether that is true or not. */
function claimedKey(bytes: Uint8Array): PublicKey | null {
  try {
    const { payloadType, payload } = parseEnvelope(bytes);
    if (payloadType !== REPORT_PAYLOAD_TYPE) return null;
    const json = JSON.parse(Buffer.from(payload, "base64").toString()) as { publicKey?: unknown };
    return typeof json.publicKey === "string" ? parsePublicKey(json.publicKey) : null;
  } catch {
    // Whatever it is: it names no key.
    return null;
  }
}

function opens(bytes: Uint8Array, key: PublicKey): boolean {
  try {
    openReport(bytes, key);
    return true;
  } catch {
    return false;
  }
}
