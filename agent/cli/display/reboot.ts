import type { Settings } from "../../core/settings.ts";
import type { PendingReboot } from "../../core/update/record.ts";
import type { HostWords } from "./host-words.ts";

/** What a reboot is for, why it is needed, and who makes it by this policy. */
export function describeReboot(
  { release, wayBack, why }: PendingReboot,
  policy: Settings["reboot"]["policy"],
): string {
  if (wayBack) return `leads back from release ${release.sequence}, and waits for nothing`;
  const because = why === undefined ? "" : `: ${why}`;
  return `release ${release.sequence} waits for it${because}; policy ${policy}: ${whoReboots(policy)}`;
}

/** What the next boot tries. */
export function namesBoot(
  { release }: PendingReboot,
  { system }: Pick<HostWords, "system">,
): string {
  return `The next boot tries release ${release.sequence}: ${system(release.toplevel)}.`;
}

/** Who makes a reboot by this policy, and when. */
export function whoReboots(policy: Settings["reboot"]["policy"]): string {
  switch (policy) {
    case "never":
      return "a person has to make it";
    case "window":
      return "the agent makes it in the next window";
    case "now":
      return "the agent makes it";
    default:
      return policy satisfies never;
  }
}
