/**
 * Prometheus' text exposition format, version 0.0.4: families of samples, each with one
 * HELP and one TYPE line.
 */

export interface Sample {
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface MetricFamily {
  readonly name: string;
  readonly type: "gauge" | "counter";
  readonly help: string;
  /** A family without samples is left out. */
  readonly samples: readonly Sample[];
}

export const EXPOSITION_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** One sample without labels, or none if the value is not known. */
export function single(
  name: string,
  type: MetricFamily["type"],
  help: string,
  value: number | null | undefined,
): MetricFamily {
  const known = value !== null && value !== undefined && !Number.isNaN(value);
  return { name, type, help, samples: known ? [{ value }] : [] };
}

/** The families as text, in their order. */
export function exposition(families: readonly MetricFamily[]): string {
  return families
    .filter(({ samples }) => samples.length > 0)
    .map(({ name, type, help, samples }) => {
      const lines = samples.map(({ labels, value }) => `${name}${labelText(labels)} ${value}`);
      return [`# HELP ${name} ${escapeHelp(help)}`, `# TYPE ${name} ${type}`, ...lines, ""].join(
        "\n",
      );
    })
    .join("");
}

function labelText(labels: Readonly<Record<string, string>> = {}): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

/** Backslash, double quote and newline are what the format escapes in label values. */
function escapeLabel(value: string): string {
  // Half a character would be no UTF-8.
  return Buffer.from(value)
    .toString()
    .replaceAll("\\", "\\\\")
    .replaceAll('"', '\\"')
    .replaceAll("\n", "\\n");
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

/** Unix time in seconds, or null. */
export function secondsOf(time: string | null | undefined): number | null {
  return time === null || time === undefined ? null : Date.parse(time) / 1000;
}
