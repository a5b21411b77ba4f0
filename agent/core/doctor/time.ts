import type { ErrorCode } from "../errors.ts";
import { CLOCK_TOLERANCE_MS, type ClockPolicy } from "../release/acceptance.ts";
import { describeSpan } from "../text/times.ts";
import { adviceFor } from "./advice.ts";
import { about, type CheckResult } from "./result.ts";

/** What systemd says about the clock (timedatectl(1), `show`). */
export interface ClockFacts {
  /** Whether a time server set the clock. */
  readonly synchronised: boolean;
  /** Whether a service that asks time servers is on. */
  readonly service: boolean;
}

const NTP_ADVICE =
  "turn a time service on (`services.timesyncd`, `services.chrony`), or set the setting clock to " +
  "`ignore` on a site without time";

/** Whether a time server sets the clock; null if nobody can tell. */
export function judgeSynchronisation(facts: ClockFacts | null, policy: ClockPolicy): CheckResult {
  const it = about("clock.synchronised");
  if (policy === "ignore") return it.passed("the setting clock is `ignore`");
  if (facts === null) return it.untried("timedatectl does not tell");
  if (facts.synchronised) return it.passed("set by a time server");
  return facts.service
    ? it.failed(
        "a time service runs and has not set the clock yet",
        "see whether its servers can be reached: `timedatectl timesync-status`",
      )
    : it.failed("no time service runs", NTP_ADVICE);
}

/** A mirror's own time against this host's, both taken at the same moment. */
export function judgeMirrorClock(mirror: string, theirs: Date | null, ours: Date): CheckResult {
  const it = about("clock.mirror", mirror);
  if (theirs === null) return it.untried("the mirror tells no time");
  const ahead = ours.getTime() - theirs.getTime();
  const span = describeSpan(ahead);
  // The header has whole seconds.
  const found =
    Math.abs(ahead) < 2_000
      ? "the same time"
      : `this host is ${span} ${ahead > 0 ? "ahead of" : "behind"} the mirror`;
  if (Math.abs(ahead) <= CLOCK_TOLERANCE_MS) return it.passed(found);
  return it.failed(
    `${found}: ${ours.toISOString()} here, ${theirs.toISOString()} there`,
    adviceFor("CLOCK_BEHIND"),
    ahead > 0 ? "CLOCK_IMPLAUSIBLE" : "CLOCK_BEHIND",
  );
}

const CLOCK_CODES: ReadonlySet<ErrorCode> = new Set([
  "CLOCK_BEHIND",
  "CLOCK_IMPLAUSIBLE",
  "MANIFEST_EXPIRED",
  "MIRROR_STALE",
]);

/** The times of the newest release against this host's clock, or why it was refused for them. */
export function judgeReleaseTimes(
  accepted: { readonly createdAt: string; readonly expiresAt: string } | null,
  refusals: readonly { readonly code: ErrorCode; readonly message: string }[],
  now: Date,
): CheckResult {
  const it = about("clock.release");
  if (accepted) {
    const age = describeSpan(now.getTime() - Date.parse(accepted.createdAt));
    const left = describeSpan(Date.parse(accepted.expiresAt) - now.getTime());
    return it.passed(`created ${age} ago, expires in ${left}`);
  }
  const refusal = refusals.find(({ code }) => CLOCK_CODES.has(code));
  return refusal
    ? it.failed(refusal.message, adviceFor(refusal.code), refusal.code)
    : it.untried("no mirror gave a release whose times could be looked at");
}
