import { PullError, toPullError } from "../../core/errors.ts";
import {
  comparePositions,
  describePosition,
  entryOf,
  notNamed,
  releaseFor,
  type HostEntry,
  type Manifest,
  type Release,
  type SignedManifest,
} from "../../core/formats/manifest.ts";
import { platformOf, runsOn } from "../../core/formats/platform.ts";
import {
  memoryOfManifest,
  mergeMemories,
  type TrustMemories,
} from "../../core/release/acceptance.ts";
import { passageOf, stageRelease } from "../../core/release/barrier.ts";
import {
  agentTooOld,
  readWayOut,
  wayOutOf,
  type OfferedRelease,
} from "../../core/release/offered-release.ts";
import { placeOf } from "../../core/release/release-history.ts";
import { rolloutWaits } from "../../core/release/rollout.ts";
import { hostWaits } from "../../core/schedule/host-rules.ts";
import type { Settings } from "../../core/settings.ts";
import type { AgentRecord } from "../../core/update/record.ts";
import { decide, type Decision, type Insistence } from "../../core/update/plan.ts";
import type { AgentTools } from "../agent-tools.ts";
import { observe } from "../observe.ts";
import type { FoundRelease, SecondLook } from "./finding.ts";
import { withFailover } from "./mirror-failover.ts";
import { acceptHere, poll, type MirrorVerdict, type PollTools } from "./poll.ts";

/** What finding a release takes. */
export type FindTools = PollTools &
  Pick<AgentTools, "store" | "systems" | "commands" | "machineId" | "machine" | "log">;

/** What a decision is made for, beside the record. */
export interface Occasion {
  readonly insistence: Insistence;
  readonly signal: AbortSignal | undefined;
}

/**
 * Asks the mirrors for a release and decides what this host does about it now. What is wrong
 * with mirrors or manifests is in the finding. Throws INTERRUPTED and the errors of the host's
 * own files.
 */
export async function findRelease(
  record: AgentRecord,
  occasion: Occasion,
  tools: FindTools,
): Promise<FoundRelease> {
  return new ReleaseFinder(occasion, tools).find(record);
}

/** Which release of a manifest a host follows now, and what it does about it. */
interface Choice {
  readonly release: Release;
  readonly next?: Release | undefined;
  readonly decision: Decision;
}

/** Finds a release for one occasion, as often as it is looked at again. */
class ReleaseFinder {
  readonly #occasion: Occasion;
  readonly #tools: FindTools;

  constructor(occasion: Occasion, tools: FindTools) {
    this.#occasion = occasion;
    this.#tools = tools;
  }

  async find(record: AgentRecord): Promise<FoundRelease> {
    const { signal } = this.#occasion;
    const { accepted, error, verdicts } = await poll(this.#tools, record.trust, { signal });
    return accepted
      ? this.#judge(record, accepted.offered, verdicts)
      : this.#nothing(verdicts, error, record.trust);
  }

  #nothing(
    verdicts: readonly MirrorVerdict[],
    error: PullError | null,
    memories: TrustMemories,
  ): FoundRelease {
    return {
      ...{ verdicts, error, memories, release: null, decision: null },
      lookAgain: (record) => this.find(record),
    };
  }

  /** What an accepted manifest asks of this host now. */
  async #judge(
    record: AgentRecord,
    offered: OfferedRelease,
    verdicts: readonly MirrorVerdict[],
  ): Promise<FoundRelease> {
    const memories = mergeMemories([...record.trust, memoryOfManifest(offered.signed)]);
    try {
      const { found, error } =
        offered.kind === "understood"
          ? { found: await this.#judgeSigned(record, offered.signed), error: null }
          : await this.#judgeWayOut(record, offered);
      return {
        ...{ verdicts, error, memories },
        ...found,
        lookAgain: (current, how) =>
          how.askMirrors
            ? this.#findAgain(current, { offered, verdicts }, how)
            : this.#judge(current, offered, verdicts),
      };
    } catch (thrown) {
      return this.#nothing(verdicts, toPullError(thrown), memories);
    }
  }

  async #judgeSigned(record: AgentRecord, signed: SignedManifest): Promise<Choice> {
    const { settings, machineId, machine } = this.#tools;
    const entry = releaseFor(signed, settings.hostname, await machineId());
    const release = asSettingsSay(entry, settings);
    expectRunnable(entryOf(signed.manifest, settings.hostname), release, machine);
    expectAllowedCommands(release, settings);
    return this.#choose(record, signed.manifest, release);
  }

  /**
   * Judges the older release that brings a newer agent, if the newer one names one that this agent
   * can follow. It is followed like a barrier: what was accepted stays the newer one, so that no
   * mirror can choose which older one it is. Throws AGENT_TOO_OLD if there is no such release, and
   * what reading it throws.
   */
  async #judgeWayOut(
    record: AgentRecord,
    offered: OfferedRelease & { readonly kind: "ahead" },
  ): Promise<{ found: Choice; error: PullError | null }> {
    const { settings, clock, features: known } = this.#tools;
    const { hostname, channel } = settings;
    const { manifest } = offered.signed;
    // Throws HOST_NOT_IN_RELEASE, whatever an older release had for it.
    if (offered.ordersFor(hostname).namesHost === false) {
      throw notNamed(manifest, hostname);
    }
    const now = settings.clock === "ignore" ? null : clock.now();
    const named = wayOutOf(manifest, known, now);
    if (!named) {
      const why = "the channel supports no older release that it can follow: update it by hand";
      throw agentTooOld(offered, why);
    }
    const position = placeOf(named);
    const name = `release ${describePosition(position)}`;
    const { committed } = record;
    const came = committed?.channel === channel ? committed : null;
    if (came && comparePositions(placeOf(came), position) > 0) {
      const was = describePosition(placeOf(came));
      throw agentTooOld(offered, `this host was release ${was}, and does not go back to ${name}`);
    }
    const signed = await withFailover(this.#tools, async (mirror) => {
      const { signal } = this.#occasion;
      const bytes = await mirror.readRelease(channel, named.digest, signal);
      return readWayOut(bytes, offered, named, { hostname, known });
    }).catch((thrown: unknown) => {
      const { code, message } = toPullError(thrown);
      const why = agentTooOld(offered, `${name}, which it can follow, cannot be read`).message;
      throw new PullError(code, `${why}: ${message}`, { cause: thrown });
    });
    const found = await this.#judgeSigned(record, signed);
    // What brings the newer agent is on its way, or still comes.
    const { kind } = found.decision;
    const isOnItsWay = kind !== "active" && kind !== "denied";
    const why = `${name} is the newest that it can follow, and is ${kind} here`;
    return { found, error: isOnItsWay ? null : agentTooOld(offered, why) };
  }

  /**
   * Asks the mirrors whether there is a newer manifest than the one before. If none can be
   * read that one stands, unless it has expired meanwhile.
   */
  async #findAgain(
    record: AgentRecord,
    before: { offered: OfferedRelease; verdicts: readonly MirrorVerdict[] },
    { signal = this.#occasion.signal, enough }: SecondLook,
  ): Promise<FoundRelease> {
    const { accepted, verdicts } = await poll(this.#tools, record.trust, {
      signal,
      ...(enough && { enough }),
    });
    if (accepted) {
      // The same manifest stands by what all mirrors said when it was found.
      const isNews = accepted.offered.signed.digest !== before.offered.signed.digest;
      return this.#judge(record, accepted.offered, isNews ? verdicts : before.verdicts);
    }
    const { settings, clock, log } = this.#tools;
    // Nothing was accepted, so that each of them has an error.
    for (const { mirror, code, message } of verdicts) {
      log.warn(`asked again: ${mirror}: ${message}`, { code });
    }
    try {
      acceptHere(before.offered.signed, settings, record.trust, clock.now());
    } catch (thrown) {
      return this.#nothing(before.verdicts, toPullError(thrown), record.trust);
    }
    return this.#judge(record, before.offered, before.verdicts);
  }

  /** Decides about a release, or about one that stands before it, as things are at this moment. */
  async #choose(record: AgentRecord, manifest: Manifest, release: Release): Promise<Choice> {
    const { settings, store, systems, clock, commands, log } = this.#tools;
    const { insistence } = this.#occasion;
    const now = clock.now();
    const commanded = {
      hold: await commands.readHold(),
      confirmation: await commands.readConfirmation(),
    };
    if (commanded.hold.kind === "damaged") {
      log.error(`hold: ${commanded.hold.why}; this host counts as held`, { code: "STATE_CORRUPT" });
    }
    const { committed } = record;
    const host = await observe({ store, systems }, committed?.toplevel, release.toplevel);
    const policy = rolloutWaits(manifest, settings.hostname, record, now);
    const decideOn = (one: Release): Decision => {
      const waits = [...policy, ...hostWaits(settings, commanded, one, now)];
      const { drift: driftPolicy } = settings;
      const { retryMax } = settings.limits;
      const { attempts } = settings.activation;
      const rules = { waits, driftPolicy, retryMax, attempts };
      return decide({ record, release: one, host, now, insistence, ...rules });
    };
    const decision = decideOn(release);
    const passage = passageOf(manifest, settings.hostname, record);
    // A host that already is what the release asks for takes no way through another one.
    const isThere = decision.kind === "active" || decision.kind === "adopt";
    if (passage.kind !== "through" || isThere) return { release, decision };
    const earlier = stageRelease(passage.stage, release);
    expectRunnable(passage.stage, earlier, this.#tools.machine);
    const stage = asSettingsSay(earlier, settings);
    expectAllowedCommands(stage, settings);
    return { release: stage, next: release, decision: decideOn(stage) };
  }
}

/** Throws PLATFORM_MISMATCH if this machine's kernel cannot run the system. */
function expectRunnable(
  system: Pick<HostEntry, "platform"> | undefined,
  release: Release,
  machine: string,
): void {
  const platform = system?.platform;
  if (platform === undefined || runsOn(platform, machine)) return;
  throw new PullError(
    "PLATFORM_MISMATCH",
    `release ${describePosition(placeOf(release))} has a system for ${platform} for ` +
      `${release.hostname}, and this machine is ${platformOf(machine) ?? machine}`,
  );
}

/**
 * Throws RELEASE_COMMANDS if the release brings commands that this host does not allow: where
 * store paths need keys of their own, whoever stole a release key alone must not run anything.
 */
function expectAllowedCommands(release: Release, { health }: Pick<Settings, "health">): void {
  if (health.releaseCommands) return;
  const names = release.checks.flatMap(({ kind, name }) => (kind === "command" ? [name] : []));
  if (names.length === 0) return;
  const shown = names.slice(0, 3).map((name) => JSON.stringify(name));
  throw new PullError(
    "RELEASE_COMMANDS",
    `expected no commands in release ${describePosition(placeOf(release))}, found ` +
      `${names.length}: ${shown.join(", ")}${names.length > 3 ? ", …" : ""}; this host's ` +
      "setting health.releaseCommands allows none (by default so if storeKeys is set)",
  );
}

/** The release as this host activates it. */
function asSettingsSay(release: Release, { activation }: Pick<Settings, "activation">): Release {
  const { mode = release.mode, specialisation = release.specialisation } = activation;
  return { ...release, mode, ...(specialisation !== undefined && { specialisation }) };
}
