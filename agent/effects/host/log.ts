import { pino } from "pino";
import type { Log } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { escapeJson, sanitize } from "../../core/text/sanitize.ts";

/** syslog priorities that the journal reads from a line's start (sd-daemon(3)). */
const PRIORITIES: Record<string, string> = {
  debug: "<7>",
  info: "<6>",
  warn: "<4>",
  error: "<3>",
};
const LEVEL_NAMES: Record<number, string> = { 20: "debug", 30: "info", 40: "warn", 50: "error" };
const SHOWN_FIELDS = ["component", "code"];

export type LogStyle = "json" | "terminal" | "journal";

/** The style that fits the destination of standard error; a person's command has no JSON by itself. */
export function logStyle(
  format: Settings["log"]["format"],
  isTerminal: boolean,
  byHand = false,
): LogStyle {
  if (format === "json") return "json";
  // systemd sets this for units whose output goes to the journal (systemd.exec(5)).
  if (process.env["JOURNAL_STREAM"] !== undefined && !isTerminal) return "journal";
  if (format === "text" || isTerminal || byHand) return "terminal";
  return "json";
}

/** Whom a log is for. */
export interface LogOptions {
  /** Whether a person runs the command, and is shown plain lines wherever they go. */
  readonly byHand?: boolean;
  /** Takes each line; standard error if absent. */
  readonly write?: (text: string) => void;
}

/**
 * Logs to standard error. JSON lines have their time. Lines for the journal have a priority
 * instead, because the journal records the time itself.
 */
export function createLog(
  settings: Settings["log"],
  { byHand = false, write = (text) => process.stderr.write(text) }: LogOptions = {},
): Log {
  const style = logStyle(settings.format, process.stderr.isTTY, byHand);
  const logger = pino(
    {
      level: settings.level,
      base: null,
      timestamp: style === "json" ? pino.stdTimeFunctions.isoTime : false,
      ...(style === "json" ? { formatters: { level: (label) => ({ level: label }) } } : {}),
    },
    {
      write:
        style === "json"
          ? (line) => {
              write(escapeJson(line));
            }
          : (line) => {
              write(readable(line, style));
            },
    },
  );
  const at =
    (level: keyof Log) =>
    (message: string, fields: Record<string, unknown> = {}): void => {
      logger[level](fields, message);
    };
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

function readable(line: string, style: "terminal" | "journal"): string {
  const entry = JSON.parse(line) as Record<string, unknown> & { level: number; msg: string };
  const level = LEVEL_NAMES[entry.level] ?? "error";
  const prefix =
    style === "journal"
      ? (PRIORITIES[level] ?? "")
      : `${new Date().toTimeString().slice(0, 8)} ${level.padEnd(5)} `;
  const shown = SHOWN_FIELDS.flatMap((name) =>
    typeof entry[name] === "string" ? [`[${entry[name]}] `] : [],
  ).join("");
  // One entry is one line, whatever a program or a mirror wrote into it.
  const message = sanitize(entry.msg.replace(/[\u0000-\u001f\u007f-\u009f]+/g, " "), Infinity);
  return `${prefix}${shown}${message}\n`;
}

/** Logs nothing. */
export const silentLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};
