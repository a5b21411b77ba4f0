import { PullError } from "../../core/errors.ts";
import {
  delaySchema,
  groupSchema,
  hostnameSchema,
  rolloutSchema,
  type HostEntry,
  type Manifest,
  type Rollout,
  type Wave,
} from "../../core/formats/manifest.ts";
import { newSalt } from "../../core/release/rollout.ts";
import { describeIssues } from "../../core/text/schema-issues.ts";

/** What an operator asks of a rollout. What is left out stays as it is. */
export interface RolloutRequest {
  /** UTC time. */
  readonly notBefore?: string | undefined;
  readonly waves?: readonly Wave[] | undefined;
  /** The reason why no host may begin yet. */
  readonly paused?: string | undefined;
}

/** Reads which hosts a wave has: `web1`, `@canary` or `10%`. Throws USAGE. */
function parseWho(text: string, option: string): Pick<Wave, "hosts" | "groups" | "share"> {
  const percent = /^(\d{1,3}(?:\.\d{1,6})?)%$/.exec(text)?.[1];
  if (percent !== undefined && Number(percent) > 0 && Number(percent) <= 100) {
    return { share: Number(percent) / 100 };
  }
  if (text.startsWith("@") && groupSchema.safeParse(text.slice(1)).success) {
    return { groups: [text.slice(1)] };
  }
  if (hostnameSchema.safeParse(text).success) return { hosts: [text] };
  throw new PullError(
    "USAGE",
    `${option}: expected a hostname, @GROUP or a share up to 100% such as 10%, found ${JSON.stringify(text)}`,
  );
}

function join(parts: readonly Pick<Wave, "hosts" | "groups" | "share">[]): Omit<Wave, "after"> {
  const hosts = parts.flatMap((part) => part.hosts ?? []);
  const groups = parts.flatMap((part) => part.groups ?? []);
  const shares = parts.flatMap((part) => part.share ?? []);
  return {
    ...(hosts.length > 0 && { hosts }),
    ...(groups.length > 0 && { groups }),
    ...(shares.length > 0 && { share: Math.max(...shares) }),
  };
}

/**
 * Reads waves, `WHO=AFTER,…`. WHO is hosts, `@GROUP`s and a share, joined by `+`. AFTER is a
 * duration since the rollout's start; `AFTER+OVER` spreads the turns over a time. Throws USAGE.
 */
export function parseWaves(text: string): Wave[] {
  return text.split(",").map((part) => {
    const [, who = "", after = "", over] = /^([^=]+)=([^+]+)(?:\+(.+))?$/.exec(part.trim()) ?? [];
    if (who === "") {
      throw new PullError(
        "USAGE",
        `--waves: expected WHO=AFTER such as 10%=2h or 100%=6h+1d, found ${JSON.stringify(part)}`,
      );
    }
    const members = who.split("+").map((one) => parseWho(one, "--waves"));
    for (const delay of [after, ...(over === undefined ? [] : [over])]) {
      expectDelay(delay, "--waves");
    }
    return { ...join(members), after, ...(over !== undefined && { over }) };
  });
}

/** Throws USAGE if a text is no delay of a rollout. */
function expectDelay(text: string, option: string): void {
  if (delaySchema.safeParse(text).success) return;
  throw new PullError(
    "USAGE",
    `${option}: expected a duration up to 366d such as 90s, 15m or 1d12h, found ${JSON.stringify(text)}`,
  );
}

/**
 * Puts the waves of the options together: canaries at the start, then the waves. With `over`, the
 * turns of all other hosts are spread evenly from the last wave on. Undefined if no option is
 * given. Throws USAGE.
 */
export function wavesOf(options: {
  readonly canary: readonly string[];
  readonly waves?: string | undefined;
  readonly over?: string | undefined;
}): Wave[] | undefined {
  const { canary, over } = options;
  const waves = options.waves === undefined ? [] : parseWaves(options.waves);
  if (canary.length > 0) {
    if (waves.length === 0 && over === undefined) {
      throw new PullError(
        "USAGE",
        "expected --waves or --over with --canary, to say when the other hosts go",
      );
    }
    waves.unshift({ ...join(canary.map((who) => parseWho(who, "--canary"))), after: "0s" });
  }
  if (over !== undefined) expectDelay(over, "--over");
  if (over !== undefined) waves.push({ share: 1, after: waves.at(-1)?.after ?? "0s", over });
  if (waves.length === 0) return undefined;
  const parsed = rolloutSchema.shape.waves.safeParse(waves);
  if (parsed.success) return parsed.data;
  throw new PullError("USAGE", `--waves: ${describeIssues(parsed.error, waves)}`);
}

/**
 * The rollout of a new release: what is asked for, and the rest as `before`. Undefined if every
 * host goes at once.
 */
export function rolloutFor(
  request: RolloutRequest,
  release: Pick<Manifest, "channel" | "epoch" | "sequence" | "createdAt">,
  before?: Rollout,
): Rollout | undefined {
  const { notBefore, waves, paused } = request;
  const isAsked = (notBefore ?? waves ?? paused) !== undefined;
  if (!isAsked) return before;
  return {
    start: notBefore ?? before?.start ?? release.createdAt,
    salt: before?.salt ?? newSalt(release),
    ...((waves ?? before?.waves) && { waves: [...(waves ?? before?.waves ?? [])] }),
    ...(paused === undefined
      ? before?.paused && { paused: before.paused }
      : { paused: { reason: paused, since: before?.paused?.since ?? release.createdAt } }),
  };
}

/** Throws PUBLISH_FAILED if a wave names a host or group that the release does not have. */
export function checkWaves(
  waves: readonly Wave[] | undefined,
  hosts: Readonly<Record<string, { readonly groups?: readonly string[] | undefined }>>,
): void {
  checkWaveHosts(waves, new Set(Object.keys(hosts)));
  const groups = new Set(Object.values(hosts).flatMap((entry) => entry.groups ?? []));
  for (const wave of waves ?? []) {
    const empty = wave.groups?.find((group) => !groups.has(group));
    if (empty !== undefined) {
      throw new PullError("PUBLISH_FAILED", `rollout: no host of the release is in group ${empty}`);
    }
  }
}

/** Throws PUBLISH_FAILED if a wave names a host that the release does not have. */
export function checkWaveHosts(
  waves: readonly Wave[] | undefined,
  hostnames: ReadonlySet<string>,
): void {
  const stranger = waves
    ?.flatMap(({ hosts = [] }) => hosts)
    .find((hostname) => !hostnames.has(hostname));
  if (stranger === undefined) return;
  throw new PullError("PUBLISH_FAILED", `rollout: the release names no host ${stranger}`);
}

/** Reads `HOST=REST`; messages call the rest `what`. Throws USAGE. */
export function parseAssignment(
  text: string,
  option: string,
  what: string,
): { hostname: string; value: string } {
  const equals = text.indexOf("=");
  const hostname = text.slice(0, Math.max(equals, 0));
  const value = text.slice(equals + 1);
  if (hostnameSchema.safeParse(hostname).success && value !== "") return { hostname, value };
  throw new PullError("USAGE", `${option}: expected HOST=${what}, found ${JSON.stringify(text)}`);
}

/** Reads `HOST=GROUP,GROUP` of several `--group`; gives groups by hostname. Throws USAGE. */
export function parseGroups(texts: readonly string[]): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const text of texts) {
    const { hostname, value } = parseAssignment(text, "--group", "GROUP,…");
    const groups = value.split(",");
    const wrong = groups.find((group) => !groupSchema.safeParse(group).success);
    if (wrong !== undefined) {
      throw new PullError("USAGE", `--group: expected a group, found ${JSON.stringify(wrong)}`);
    }
    found.set(hostname, [...new Set([...(found.get(hostname) ?? []), ...groups])]);
  }
  return found;
}

/** What an entry keeps when the host gets another system: a hold, but not "now". */
export function keptHold(before: HostEntry | undefined): Pick<HostEntry, "turn"> {
  return typeof before?.turn === "object" ? { turn: before.turn } : {};
}
