import { PullError } from "../../core/errors.ts";
import { entryOf, type Manifest } from "../../core/formats/manifest.ts";
import {
  hasAgentIn,
  platformIn,
  specialisationsIn,
  systemNameIn,
} from "../../effects/systemd/system-contents.ts";
import type { PublishOptions } from "./publish-options.ts";

/** What the checks of built systems need to know. */
type CheckOptions = Pick<
  PublishOptions,
  "hosts" | "allowWithoutAgent" | "allowPlatform" | "onProgress"
>;

/**
 * Refuses systems after which their hosts would follow no later release: those that call
 * themselves by another name than the one that they are published for, and those without an
 * agent, unless that is allowed for the host. Also systems without the specialisation that the
 * host is to run. Throws HOSTNAME_MISMATCH, AGENT_MISSING, SPECIALISATION_MISSING.
 */
export async function checkSystems(
  toplevels: ReadonlyMap<string, string>,
  { hosts, allowWithoutAgent, onProgress }: CheckOptions,
): Promise<void> {
  for (const { hostname, activation } of hosts) {
    const toplevel = toplevels.get(hostname);
    const wanted = activation?.specialisation;
    if (wanted === undefined || toplevel === undefined) continue;
    const names = [...(await specialisationsIn(toplevel)).keys()];
    if (names.includes(wanted)) continue;
    const found = names.length === 0 ? "none" : names.join(", ");
    throw new PullError(
      "SPECIALISATION_MISSING",
      `${hostname}: expected a specialisation ${wanted} of ${toplevel}, found ${found}`,
    );
  }
  const misnamed: string[] = [];
  const agentless: string[] = [];
  for (const [hostname, toplevel] of toplevels) {
    const name = await systemNameIn(toplevel);
    if (name !== null && name !== hostname) {
      misnamed.push(`${hostname}: its system calls itself ${JSON.stringify(name)}`);
    }
    if (!(await hasAgentIn(toplevel))) agentless.push(hostname);
  }
  if (misnamed.length > 0) {
    throw new PullError(
      "HOSTNAME_MISMATCH",
      `${few(misnamed, "; ")}. Such a host would not find itself in any later release: set ` +
        "networking.hostName, or services.nixos-pull.settings.hostname, to the published name",
    );
  }
  const refused = agentless.filter((hostname) => !allowWithoutAgent.includes(hostname));
  if (refused.length > 0) {
    throw new PullError(
      "AGENT_MISSING",
      `no nixos-pull.service in the system of ${few(refused, ", ")}: such a host would follow no ` +
        "later release. Enable services.nixos-pull there, or give --allow-without-agent HOST",
    );
  }
  if (agentless.length > 0) {
    const message = `${few(agentless, ", ")}: without nixos-pull after this release`;
    onProgress({ phase: "warning", message });
  }
}

/**
 * Refuses systems for another platform than the release in force has for their hosts, unless that
 * is allowed for the host: a machine refuses a system that its kernel cannot run. A host that is
 * new, or whose platform is unknown, has nothing to compare with. Throws PLATFORM_MISMATCH.
 */
export async function checkPlatforms(
  toplevels: ReadonlyMap<string, string>,
  current: Manifest | null,
  { allowPlatform }: Pick<CheckOptions, "allowPlatform">,
): Promise<void> {
  if (!current) return;
  const refused: string[] = [];
  for (const [hostname, toplevel] of toplevels) {
    const before = entryOf(current, hostname)?.platform;
    if (before === undefined || allowPlatform.includes(hostname)) continue;
    const platform = await platformIn(toplevel);
    if (platform === null || platform === before) continue;
    refused.push(
      `${hostname}: its new system is for ${platform}, but its system of release ` +
        `${current.sequence} is for ${before}`,
    );
  }
  if (refused.length === 0) return;
  throw new PullError(
    "PLATFORM_MISMATCH",
    `${few(refused, "; ")}. A machine cannot run a system for another platform: set ` +
      "nixpkgs.hostPlatform to the machine's, or give --allow-platform HOST if the machine was replaced",
  );
}

/** Hosts beyond this number are only counted. */
const MAX_NAMED = 5;

function few(items: readonly string[], separator: string): string {
  const more = items.length - MAX_NAMED;
  const shown = items.slice(0, MAX_NAMED).join(separator);
  return more > 0 ? `${shown}${separator}and ${more} more` : shown;
}
