import { expect } from "vitest";

/**
 * The samples of a text in Prometheus' format, without their names' beginning `nixos_pull_`.
 * Asserts of each family that it has a HELP sentence, then its type, then only its own samples.
 */
export function samplesOf(text: string): string[] {
  expect(text.endsWith("\n")).toBe(true);
  const samples: string[] = [];
  let family = "";
  let previous = "";
  for (const line of text.trimEnd().split("\n")) {
    const help = /^# HELP (\w+) [A-Z].{8,}\.$/.exec(line);
    const type = /^# TYPE (\w+) (gauge|counter)$/.exec(line);
    if (help?.[1] !== undefined) family = help[1];
    else if (type) {
      expect(previous).toContain(`# HELP ${family} `);
      expect(type[1]).toBe(family);
      expect(type[2]).toBe(family.endsWith("_total") ? "counter" : "gauge");
    } else {
      expect(line.split(/[ {]/)[0]).toBe(family);
      samples.push(line.replace(/^nixos_pull_/, ""));
    }
    previous = line;
  }
  return samples;
}
