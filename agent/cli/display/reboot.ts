import type { Settings } from "../../core/settings.ts";
import type { PendingReboot } from "../../core/update/record.ts";

/** What a reboot is for, why it is needed, and who makes it by this policy. */
export function describeReboot(
  { release, wayBack, why }: PendingReboot,
  policy: Settings["reboot"]["policy"],
): string {
  if (wayBack) return `leads back from release ${release.sequence}, and waits for nothing`;
  const who = {
    never: "a person has to make it",
    window: "the agent makes it in the next window",
    now: "the agent makes it",
  }[policy];
  const because = why === undefined ? "" : `: ${why}`;
  return `release ${release.sequence} waits for it${because}; policy ${policy}: ${who}`;
}
