import type { ErrorCode } from "../errors.ts";
import { keyMaterial, withoutRevoked, type PublicKey } from "../formats/signing-key.ts";
import { adviceFor } from "./advice.ts";
import { about, type CheckId, type CheckResult } from "./result.ts";

/** Why something failed. */
interface Why {
  readonly code: ErrorCode;
  readonly message: string;
}

/** Whose signatures count on this host. That every key is a good one was checked with the settings. */
export function judgeTrustedKeys({
  publicKeys,
  revokedKeys,
  threshold,
}: {
  readonly publicKeys: readonly PublicKey[];
  readonly revokedKeys: readonly PublicKey[];
  readonly threshold: number;
}): CheckResult {
  const it = about("keys.trusted");
  const good = withoutRevoked(publicKeys, revokedKeys);
  const distinct = new Set(good.map(keyMaterial)).size;
  const revoked = publicKeys.filter((key) => !good.includes(key)).map(({ name }) => name);
  const found =
    `${good.map(({ name }) => name).join(", ")}; ${threshold} must sign` +
    (revoked.length === 0 ? "" : `; revoked: ${revoked.join(", ")}`);
  if (distinct >= threshold) return it.passed(found);
  return it.failed(found, "add keys to publicKeys, or lower the threshold", "KEY_INVALID");
}

const SIGNATURE_CODES: ReadonlySet<ErrorCode> = new Set(["SIGNATURE_THRESHOLD", "KEY_REVOKED"]);

/** Who signed the newest release, or why its signatures do not count. */
export function judgeSignatures(
  signedBy: readonly string[] | null,
  refusals: readonly Why[],
): CheckResult {
  const it = about("keys.release");
  if (signedBy) return it.passed(`signed by ${signedBy.join(", ")}`);
  const refusal = refusals.find(({ code }) => SIGNATURE_CODES.has(code));
  return refusal
    ? it.failed(refusal.message, adviceFor(refusal.code), refusal.code)
    : it.untried("no mirror gave a release whose signatures could be looked at");
}

/** What is looked at in a release, in this order: after a failure the rest was not looked at. */
const STEPS: readonly { id: CheckId; codes: readonly ErrorCode[]; passed: string }[] = [
  { id: "release.agent", codes: ["AGENT_TOO_OLD", "FORMAT_UNSUPPORTED"], passed: "it does" },
  { id: "release.host", codes: ["HOST_NOT_IN_RELEASE", "MACHINE_MISMATCH"], passed: "it is there" },
  { id: "release.platform", codes: ["PLATFORM_MISMATCH"], passed: "it is" },
  { id: "release.commands", codes: ["RELEASE_COMMANDS"], passed: "none" },
];

/** What a release that was accepted has for this host; `error` is why it is not followed, if so. */
export function judgeEntry(error: Why | null): CheckResult[] {
  const at = STEPS.findIndex(({ codes }) => error !== null && codes.includes(error.code));
  return STEPS.map(({ id, passed }, index) => {
    if (at < 0 || index < at) return about(id).passed(passed);
    if (index > at || error === null) return about(id).untried("the check before it failed");
    return about(id).failed(error.message, adviceFor(error.code), error.code);
  });
}

/** Whether an error says that the entry itself is at fault, which `judgeEntry` tells. */
export function isAboutEntry({ code }: Why): boolean {
  return STEPS.some(({ codes }) => codes.includes(code));
}

/** The same, if no release was accepted. */
export function noEntry(): CheckResult[] {
  return STEPS.map(({ id }) => about(id).untried("no mirror gave a release"));
}

/** A system by what people call it, and the name that it calls itself. */
export interface NamedSystem {
  readonly what: string;
  /** Null if it has none of its own. */
  readonly name: string | null;
}

/** Whether the systems of this host call themselves by its name. */
export function judgeNames(hostname: string, systems: readonly NamedSystem[]): CheckResult {
  const it = about("release.name");
  const wrong = systems.filter(({ name }) => name !== null && name !== hostname);
  if (wrong.length === 0) return it.passed(hostname);
  const found = wrong.map(({ what, name }) => `${what} calls itself ${name}`).join("; ");
  return it.failed(
    `${found}, and this host is ${hostname}`,
    "networking.hostName, or services.nixos-pull.settings.hostname, must be the name that the release " +
      "gives this host",
    "HOSTNAME_MISMATCH",
  );
}
