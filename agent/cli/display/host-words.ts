import { isSystem, shortSystemNames, withShortSystems } from "../../core/text/system-names.ts";
import type { Times } from "../../core/text/times.ts";
import type { Reason } from "../../core/update/states.ts";

/**
 * What one screen says about a host: its times are local, the systems that it names are short,
 * and each message is said once.
 */
export class HostWords {
  readonly times: Times;
  /** The short name of a system; `nothing` for null. */
  readonly system: (system: string | null) => string;
  readonly #systems: ReadonlySet<string>;
  readonly #said = new Set<string>();

  /** `systems` are those that the screen names, for people to tell them apart. */
  constructor(times: Times, systems: readonly (string | null | undefined)[]) {
    this.times = times;
    this.system = shortSystemNames(systems);
    this.#systems = new Set(systems.flatMap((it) => it ?? []));
  }

  /** How far away a time is, in parentheses after it; nothing if times are exact. */
  away(at: string): string {
    return this.times.isExact ? "" : ` (${this.times.ago(at)})`;
  }

  /** A message from elsewhere, with local times and short names of systems. */
  message(text: string): string {
    const shorten = (path: string): string =>
      this.#systems.has(path) || isSystem(path) ? this.system(path) : path;
    return this.times.within(withShortSystems(text, shorten));
  }

  /** Whether a message was said before. */
  hasSaid({ message }: Pick<Reason, "message">): boolean {
    return this.#said.has(message);
  }

  /** A message that has no code, or that it was said before. */
  once(message: string): string {
    if (this.#said.has(message)) return "as above";
    this.#said.add(message);
    return this.message(message);
  }

  /** Why something failed: the code and the message, or the code alone if the message was said. */
  reason({ code, message }: Reason): string {
    if (this.#said.has(message)) return `${code}, as above`;
    this.#said.add(message);
    return `${code}: ${this.message(message)}`;
  }
}
