import { sanitize } from "../text/sanitize.ts";

/**
 * What switch-to-configuration printed, read line by line while it comes: the facts by which a
 * run is judged, and the lines that say why. Exit codes alone do not tell (a failed unit hides
 * a failed activation script), and the last lines do not either (they are the status of every
 * failed unit). All of it is bounded, whatever the program prints.
 */

/** An activation script's snippet that failed, and with which code. */
export interface FailedSnippet {
  readonly name: string;
  readonly code: number;
}

/** What the output of one run shows. Names are in the order in which they came, each once. */
export interface SwitchFacts {
  /** Lines that were printed, without empty ones; null if the output could not be read. */
  readonly lineCount: number | null;
  /** Another switch held the lock, and that was the last word. */
  readonly lockRefused: boolean;
  /** Pre-switch checks that refused; empty if it is not known which. */
  readonly failedChecks: readonly string[];
  /** A pre-switch check refused, or the program said that they did. */
  readonly checksRefused: boolean;
  /** A switch inhibitor differs: the system is better taken by a boot. */
  readonly inhibited: boolean;
  readonly bootLoaderFailed: boolean;
  /** The new init is incompatible with the running one. */
  readonly rebootDemanded: boolean;
  /** Units were stopped, or the activation script was started. */
  readonly begun: boolean;
  readonly activationScriptFailed: boolean;
  readonly failedSnippets: readonly FailedSnippet[];
  /** Units that the program itself lists as failed, old failures included. */
  readonly failedUnits: readonly string[];
  /** Units whose job to start, stop, restart or reload failed, or a dependency's job. */
  readonly failedJobs: readonly string[];
  /** Users whose manager could not be switched. */
  readonly failedUsers: readonly string[];
  readonly panicked: boolean;
}

/** The facts of a run of which nothing could be read. */
export const NO_FACTS: SwitchFacts = {
  lineCount: null,
  lockRefused: false,
  failedChecks: [],
  checksRefused: false,
  inhibited: false,
  bootLoaderFailed: false,
  rebootDemanded: false,
  begun: false,
  activationScriptFailed: false,
  failedSnippets: [],
  failedUnits: [],
  failedJobs: [],
  failedUsers: [],
  panicked: false,
};

/** So many names are kept of each kind; a system with more failures is not told apart by them. */
const MAX_NAMES = 200;
/** A line is read no further than this. It has room for a long list of units. */
const MAX_READ = 64 * 1024;
/** A kept line is cut to this. */
const MAX_LINE = 400;
const FIRST_LINES = 8;
const NAMING_LINES = 24;
const LAST_LINES = 16;

/** NixOS's check that compares the switch inhibitors of two systems. */
const INHIBITOR_CHECK = "switchInhibitors";

type Names = "failedChecks" | "failedUnits" | "failedJobs" | "failedUsers";
type Flags =
  | "checksRefused"
  | "inhibited"
  | "bootLoaderFailed"
  | "rebootDemanded"
  | "begun"
  | "activationScriptFailed"
  | "panicked";

/** What a line says: a flag that it sets, names that it has in its first group, or both. */
interface Phrase {
  readonly form: RegExp;
  readonly sets?: Flags;
  readonly names?: Names;
  /** Whether the line says why something failed, and is kept wherever it stands. */
  readonly isReason: boolean;
}

/** Phrases of the Rust program of all releases, of the Perl program, and of systemctl. */
const PHRASES: readonly Phrase[] = [
  { form: /^stopping the following units: /, sets: "begun", isReason: false },
  { form: /^activating the configuration\.\.\./, sets: "begun", isReason: false },
  { form: /^Failed to run activate script/, sets: "activationScriptFailed", isReason: true },
  { form: /^Pre-switch check '([^']+)' failed/, names: "failedChecks", isReason: true },
  { form: /^Pre-switch checks failed/, sets: "checksRefused", isReason: true },
  { form: /^There are changes to critical components/, sets: "inhibited", isReason: true },
  { form: /^Failed to install bootloader/, sets: "bootLoaderFailed", isReason: true },
  { form: /^won't take effect until you reboot/, sets: "rebootDemanded", isReason: true },
  { form: /^warning: the following units failed: (.+)/, names: "failedUnits", isReason: true },
  { form: /^warning: user activation for (\S+) failed/, names: "failedUsers", isReason: true },
  { form: /^warning: the following user units failed: /, isReason: true },
  { form: /^Failed to (?:re)?(?:start|stop|load) user unit /, isReason: true },
  {
    form: /^Failed to (?:start|stop|restart|reload) ([\w@:.\\-]+\.[a-z]+)(?::|$)/,
    names: "failedJobs",
    isReason: true,
  },
  { form: /^A dependency job for (\S+) failed/, names: "failedJobs", isReason: true },
  { form: /^Job for (\S+) (?:failed|canceled)/, names: "failedJobs", isReason: true },
  { form: /^thread '[^']*' panicked at/, sets: "panicked", isReason: true },
  { form: /^thread '[^']*' \(\d+\) panicked at/, sets: "panicked", isReason: true },
  { form: /^Error: /, isReason: true },
  { form: /^Unable to list users with logind/, isReason: true },
];

/** It may come after text of the snippet's own that has no end of line. */
const SNIPPET = /Activation script snippet '?([^']+?)'? failed \((\d{1,3})\)/;
/** What follows is the status of failed units, with what they logged. */
const UNITS_FAILED = "warning: the following units failed: ";
const LOCK = /^Could not (?:acquire|open) lock/;

/** Whether a line says why a switch failed, whatever stands around it. */
export function isReasonLine(line: string): boolean {
  return (
    SNIPPET.exec(line)?.index === 0 ||
    LOCK.test(line) ||
    PHRASES.some(({ form, isReason }) => isReason && form.test(line))
  );
}

/** Collects what a run prints. Takes any number of lines; holds a bounded part. */
export class SwitchOutput {
  readonly #flags = new Set<Flags>();
  readonly #names: Record<Names, Set<string>> = {
    failedChecks: new Set(),
    failedUnits: new Set(),
    failedJobs: new Set(),
    failedUsers: new Set(),
  };
  readonly #snippets = new Map<string, FailedSnippet>();
  readonly #first: string[] = [];
  readonly #naming: NumberedLine[] = [];
  readonly #last: NumberedLine[] = [];
  #count = 0;
  #lockRefused = false;
  #unitsFollow = false;

  /** Takes the next line; empty ones do not count. */
  take(raw: string): void {
    const line = raw.slice(0, MAX_READ).trimEnd();
    if (line === "") return;
    this.#lockRefused = LOCK.test(line);
    const isSnippet = this.#readSnippet(line);
    if (!isSnippet) this.#read(line);
    this.#keep(line, isSnippet || isReasonLine(line));
    this.#count++;
  }

  /** What the lines so far show. */
  facts(): SwitchFacts {
    const has = (flag: Flags): boolean => this.#flags.has(flag);
    const names = (kind: Names): string[] => [...this.#names[kind]];
    return {
      lineCount: this.#count,
      lockRefused: this.#lockRefused,
      failedChecks: names("failedChecks"),
      checksRefused: has("checksRefused") || this.#names.failedChecks.size > 0,
      inhibited: has("inhibited") || this.#names.failedChecks.has(INHIBITOR_CHECK),
      bootLoaderFailed: has("bootLoaderFailed"),
      rebootDemanded: has("rebootDemanded"),
      begun: has("begun"),
      activationScriptFailed: has("activationScriptFailed") || this.#snippets.size > 0,
      failedSnippets: [...this.#snippets.values()],
      failedUnits: names("failedUnits"),
      failedJobs: names("failedJobs"),
      failedUsers: names("failedUsers"),
      panicked: has("panicked"),
    };
  }

  /**
   * The first lines, those that say why something failed, and the last ones, in their order;
   * a line in parentheses says how many are left out in between.
   */
  lines(): string[] {
    const first = this.#first.map((text, at) => ({ at, text }));
    const kept = new Map([...first, ...this.#naming, ...this.#last].map((line) => [line.at, line]));
    const lines: string[] = [];
    let next = 0;
    for (const { at, text } of [...kept.values()].sort((a, b) => a.at - b.at)) {
      if (at > next) lines.push(`(${at - next} lines left out)`);
      lines.push(text);
      next = at + 1;
    }
    return lines;
  }

  /** Whether the line says that a snippet failed; notes which. */
  #readSnippet(line: string): boolean {
    if (line.startsWith(UNITS_FAILED)) this.#unitsFollow = true;
    const snippet = this.#unitsFollow ? null : SNIPPET.exec(line);
    if (snippet?.[1] !== undefined && this.#snippets.size < MAX_NAMES) {
      const failed = { name: sanitize(snippet[1], MAX_LINE), code: Number(snippet[2]) };
      this.#snippets.set(snippetText(failed), failed);
      return true;
    }
    return false;
  }

  #read(line: string): void {
    for (const { form, sets, names } of PHRASES) {
      const match = form.exec(line);
      if (!match) continue;
      if (sets) this.#flags.add(sets);
      if (names) this.#addNames(this.#names[names], match[1] ?? "");
    }
  }

  #addNames(known: Set<string>, list: string): void {
    for (const name of list.split(", ")) {
      if (known.size >= MAX_NAMES) return;
      if (name !== "") known.add(sanitize(name.replace(/\.$/, ""), MAX_LINE));
    }
  }

  #keep(line: string, isReason: boolean): void {
    const text = line.length > MAX_LINE ? `${line.slice(0, MAX_LINE - 1)}…` : line;
    const numbered = { at: this.#count, text };
    if (this.#first.length < FIRST_LINES) this.#first.push(text);
    else if (this.#naming.length < NAMING_LINES && isReason) this.#naming.push(numbered);
    this.#last.push(numbered);
    if (this.#last.length > LAST_LINES) this.#last.shift();
  }
}

interface NumberedLine {
  readonly at: number;
  readonly text: string;
}

/** A failed snippet as history and messages name it: two that read alike failed alike. */
export function snippetText({ name, code }: FailedSnippet): string {
  return `${name} (${code})`;
}

/** Of kept lines the `most` that say most: those with reasons first, then the last ones. */
export function tellingLines(lines: readonly string[], most: number): string[] {
  const numbered = lines.map((text, at) => ({ at, text }));
  const reasons = numbered.filter(({ text }) => isReasonLine(text)).slice(0, most);
  const room = most - reasons.length;
  const others = numbered.filter((line) => !reasons.includes(line));
  return [...reasons, ...(room > 0 ? others.slice(-room) : [])]
    .sort((a, b) => a.at - b.at)
    .map(({ text }) => text);
}
