const UNITS = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["min", 60_000],
] as const;

/** How long ago a time was, as one number: `3 d`, `5 h`, `12 min`, `now`. */
export function describeAge(time: string, now: Date): string {
  const age = now.getTime() - Date.parse(time);
  for (const [name, ms] of UNITS) {
    if (Math.abs(age) >= ms) {
      const count = Math.floor(Math.abs(age) / ms);
      return age > 0 ? `${count} ${name}` : `in ${count} ${name}`;
    }
  }
  return "now";
}
