import { backoffMs, longestBackoff } from "../../core/update/backoff.ts";
import { toPullError } from "../../core/errors.ts";
import {
  REPORT_TARGETS,
  reportTargets,
  type PendingReport,
  type ReportTarget,
} from "../../core/formats/pending-report.ts";
import type { AgentTools } from "../agent-tools.ts";
import { signedReport, type SignedReportTools } from "./host-report.ts";

/** What delivering reports takes. */
export type DeliveryTools = SignedReportTools &
  Pick<AgentTools, "spool" | "outlets" | "log" | "random">;

type AnyTarget = PendingReport["targets"][number];
type Target = AnyTarget & { readonly target: ReportTarget };

function isKnown(it: AnyTarget): it is Target {
  return REPORT_TARGETS.some((target) => target === it.target);
}

function knownTargets(pending: PendingReport | null): Target[] {
  return (pending?.targets ?? []).filter(isKnown);
}

/** The targets that another version of nixos-pull has: they are left to it. */
function othersOf(pending: PendingReport | null): AnyTarget[] {
  return (pending?.targets ?? []).filter((it) => !isKnown(it));
}

/**
 * Brings this host's report to where the settings say. What cannot be delivered is kept on
 * disk and tried again, later and later, until it arrives or a newer report takes its
 * place. Whatever goes wrong is a warning: reports never stand in the way of releases.
 */
export class ReportDelivery {
  readonly #tools: DeliveryTools;

  constructor(tools: DeliveryTools) {
    this.#tools = tools;
  }

  /** Makes a report, puts it in place of an older one and tries to deliver it everywhere. */
  async sendNew(signal?: AbortSignal): Promise<void> {
    const { settings, clock } = this.#tools;
    const targets = reportTargets(settings);
    if (targets.length === 0) return;
    await this.#orWarn(async () => {
      const before = await this.#tools.spool.read();
      const { envelope } = await signedReport(this.#tools);
      const retryAt = clock.now().toISOString();
      const pending: PendingReport = {
        ...before,
        envelope,
        targets: [
          ...targets.map((target) => {
            const waiting = before?.targets.find((it) => it.target === target);
            return { ...waiting, target, failures: waiting?.failures ?? 0, retryAt };
          }),
          ...othersOf(before),
        ],
      };
      await this.#tools.spool.write(pending);
      await this.#deliver(pending, signal);
    });
  }

  /** Tries again what is due. */
  async retry(signal?: AbortSignal): Promise<void> {
    await this.#orWarn(async () => {
      const pending = await this.#tools.spool.read();
      if (pending) await this.#deliver(pending, signal);
    });
  }

  /** Milliseconds until something is to be tried again; Infinity if nothing waits. */
  async untilRetry(): Promise<number> {
    const now = this.#tools.clock.now().getTime();
    const pending = await this.#tools.spool.read().catch(() => null);
    const times = knownTargets(pending).map(({ retryAt }) => Date.parse(retryAt) - now);
    return Math.max(0, Math.min(Infinity, ...times));
  }

  async #deliver(pending: PendingReport, signal: AbortSignal | undefined): Promise<void> {
    const wanted = reportTargets(this.#tools.settings);
    const left = await Promise.all(
      knownTargets(pending)
        // The settings may have changed since it was put there.
        .filter(({ target }) => wanted.includes(target))
        .map((target) => this.#try(target, pending.envelope, signal)),
    );
    await this.#tools.spool.write({
      ...pending,
      targets: [...left.flatMap((it) => it ?? []), ...othersOf(pending)],
    });
  }

  /** One attempt; gives what is left to do, or null if it arrived. */
  async #try(
    due: Target,
    envelope: string,
    signal: AbortSignal | undefined,
  ): Promise<Target | null> {
    const { settings, clock, log, random, outlets } = this.#tools;
    const now = clock.now().getTime();
    const { target, failures } = due;
    // A clock that was set back must not keep it for years.
    if (Date.parse(due.retryAt) - now > 0 && Date.parse(due.retryAt) - now <= this.#longest()) {
      return due;
    }
    try {
      await outlets.deliver(target, envelope, signal);
      if (failures > 0) log.info(`the report was delivered (${target}), attempt ${failures + 1}`);
      return null;
    } catch (thrown) {
      const { code, message } = toPullError(thrown);
      if (code === "INTERRUPTED") return due;
      const { retryBase: base, retryMax: max } = settings.limits;
      const wait = backoffMs(failures + 1, { base, max }, random());
      log[failures === 0 ? "warn" : "debug"](`the report could not be delivered: ${message}`, {
        code,
      });
      return { ...due, failures: failures + 1, retryAt: new Date(now + wait).toISOString() };
    }
  }

  #longest(): number {
    return longestBackoff(this.#tools.settings.limits.retryMax);
  }

  async #orWarn(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (thrown) {
      const { code, message } = toPullError(thrown);
      if (code === "INTERRUPTED") return;
      this.#tools.log.warn(`the report could not be made or kept: ${message}`, { code });
    }
  }
}
