// Tables with ratios, and what they were measured on.
import { spawnSync } from "node:child_process";
import { arch, availableParallelism, loadavg, release, totalmem } from "node:os";

/** Says what ran here: numbers mean nothing without it. */
export function printMachine() {
  const version = (command, ...args) => {
    const { stdout, stderr } = spawnSync(command, args, { encoding: "utf8" });
    return `${stdout ?? ""}${stderr ?? ""}`.split("\n")[0].trim();
  };
  console.log(
    [
      `${availableParallelism()} cores (${arch()}), ${(totalmem() / 1e9).toFixed(0)} GB, Linux ${release()}`,
      `node ${process.version}`,
      version("nix", "--version"),
      version("nginx", "-v"),
      // More than about 0.5 here, and something else took part in what follows.
      `load at the start ${loadavg()[0].toFixed(2)}`,
    ].join("; "),
  );
}

/** Prints a Markdown table; cells are text, the first column names the row. */
export function printTable(title, columns, rows) {
  const table = [columns, ...rows].map((row) => row.map(String));
  const widths = columns.map((_, at) => Math.max(...table.map((row) => row[at].length)));
  const line = (row) =>
    `| ${row.map((cell, at) => (at === 0 ? cell.padEnd(widths[at]) : cell.padStart(widths[at]))).join(" | ")} |`;
  const rule = `| ${widths.map((width, at) => (at === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`)).join(" | ")} |`;
  const [head, ...body] = table;
  console.log(["", `**${title}**`, "", line(head), rule, ...body.map(line)].join("\n"));
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export const formatSeconds = (seconds) => `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
export const formatMegabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
export const formatRatio = (ratio) => `${ratio.toFixed(2)}×`;

/** Reads `--rounds 3` and the like; gives the defaults where they are not given. */
export function readOptions(defaults) {
  const options = { ...defaults };
  for (let at = 2; at < process.argv.length; at += 2) {
    const name = process.argv[at].replace(/^--/, "");
    const value = Number(process.argv[at + 1]);
    if (!(name in options) || !Number.isInteger(value) || value < 1) {
      const usage = Object.entries(defaults).map(([key, number]) => `[--${key} ${number}]`);
      console.error(`usage: ${process.argv[1]} ${usage.join(" ")}`);
      process.exit(2);
    }
    options[name] = value;
  }
  return options;
}
