import { passageOf } from "./barrier.ts";
import { placeInOrder } from "./host-order.ts";
import { parseDuration } from "../text/duration.ts";
import type { AgentRecord } from "../update/record.ts";
import { entryOf, type HostEntry, type Manifest, type Rollout } from "../formats/manifest.ts";
import type { Wait } from "../schedule/waiting.ts";

/**
 * The rollout of a release, decided on each host from signed data and its own clock. No
 * host knows of another one: "ten per cent" are those whose hashed names come first.
 */

/**
 * When a host may go, in milliseconds since 1970: the earliest time that a wave gives it.
 * Null if it is in no wave.
 */
export function turnOf(
  rollout: Rollout,
  hostname: string,
  groups: readonly string[] = [],
): number | null {
  const start = Date.parse(rollout.start);
  if (!rollout.waves) return start;
  const place = placeInOrder(rollout.salt, hostname);
  let turn: number | null = null;
  let before = 0;
  for (const { hosts, groups: ofGroups, share = 0, after, over } of rollout.waves) {
    const isNamed = hosts?.includes(hostname) ?? false;
    const isInGroup = ofGroups?.some((group) => groups.includes(group)) ?? false;
    const isInShare = place < share;
    if (isNamed || isInGroup || isInShare) {
      // The turns of a wave with a share are spread over the hosts that it adds.
      const within = isInShare ? Math.max(0, (place - before) / (share - before)) : place;
      const at = start + milliseconds(after) + Math.ceil(within * milliseconds(over ?? "0s"));
      turn = Math.min(turn ?? Infinity, at);
    }
    before = Math.max(before, share);
  }
  return turn;
}

function milliseconds(duration: string): number {
  return parseDuration(duration) ?? 0;
}

/**
 * What a release waits for on this host, by its rollout. `clock` is the host's own: a host goes
 * too early by as much as its clock is wrong at most, and never waits for a time that the
 * release proves to be past.
 */
export function rolloutWaits(
  manifest: Manifest,
  hostname: string,
  record: AgentRecord,
  clock: Date,
): Wait[] {
  const entry = entryOf(manifest, hostname);
  if (!entry) return [];
  const passage = passageOf(manifest, hostname, record);
  const waits = turnWaits(manifest, hostname, entry, clock);
  return passage.kind === "barred"
    ? [...waits, waitFor("BARRIER_AHEAD", passage.message, null)]
    : waits;
}

function turnWaits(
  { rollout, createdAt }: Manifest,
  hostname: string,
  { turn: own, groups }: HostEntry,
  clock: Date,
): Wait[] {
  const waits: Wait[] = [];
  if (rollout?.paused) {
    const { reason, since } = rollout.paused;
    waits.push(waitFor("ROLLOUT_PAUSED", `its rollout is paused since ${since}: ${reason}`, null));
  }
  if (typeof own === "object") {
    waits.push(waitFor("ROLLOUT_PAUSED", `it holds this host back: ${own.held}`, null));
  }
  if (!rollout || own === "now") return waits;
  const now = Math.max(clock.getTime(), Date.parse(createdAt));
  const start = Date.parse(rollout.start);
  const turn = turnOf(rollout, hostname, groups);
  if (now < start) {
    waits.push(waitFor("NOT_BEFORE", `it starts at ${rollout.start}`, start));
  }
  if (turn === null) {
    waits.push(waitFor("ROLLOUT_PENDING", "no wave of its rollout has this host yet", null));
  } else if (turn > start && now < turn) {
    const at = new Date(turn).toISOString();
    waits.push(waitFor("ROLLOUT_PENDING", `this host's turn comes at ${at}`, turn));
  }
  return waits;
}

/** An operator decided it, so a person's `apply` waits too. Only what surely comes is fetched ahead. */
function waitFor(reason: Wait["reason"], message: string, until: number | null): Wait {
  return {
    reason,
    message,
    until: until === null ? null : new Date(until).toISOString(),
    binds: "everyone",
    allowsFetch: reason === "NOT_BEFORE",
  };
}

/**
 * The rollout as it goes on after a pause. The schedule moves by the time that was lost: hosts
 * whose turn came before the pause may still go, and no other host's turn came meanwhile. A
 * rollout that had not started yet starts at its time, or now if that is past.
 */
export function resumeRollout(rollout: Rollout, now: Date): Rollout {
  const { paused, ...rest } = rollout;
  if (!paused) return rollout;
  const start = Date.parse(rollout.start);
  const lost = Math.max(0, now.getTime() - Math.max(Date.parse(paused.since), start));
  return { ...rest, start: new Date(start + lost).toISOString() };
}

/** A salt for a release without one. Each release of a channel gets another. */
export function newSalt({
  channel,
  epoch,
  sequence,
}: Pick<Manifest, "channel" | "epoch" | "sequence">): string {
  return `${channel} ${epoch ? `${epoch.number}.` : ""}${sequence}`;
}
