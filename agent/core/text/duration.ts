import * as z from "zod";

const UNITS = { s: 1, m: 60, h: 3600, d: 86_400 } as const;
const PART = /(\d+)([smhd])/g;
const WHOLE = /^(\d+[smhd])+$/;

/** Milliseconds of a duration such as `90s`, `15m` or `1h30m`; null if it is none. */
export function parseDuration(text: string): number | null {
  if (!WHOLE.test(text)) return null;
  let seconds = 0;
  for (const [, count, unit] of text.matchAll(PART)) {
    seconds += Number(count) * UNITS[unit as keyof typeof UNITS];
  }
  return Number.isSafeInteger(seconds * 1000) ? seconds * 1000 : null;
}

/** A duration with at most two units, for people: `45s`, `2h 5m`, `3d 4h`. */
export function formatDuration(ms: number): string {
  let seconds = Math.max(0, Math.round(ms / 1000));
  const parts: string[] = [];
  for (const [unit, length] of Object.entries(UNITS).reverse()) {
    const count = Math.floor(seconds / length);
    seconds -= count * length;
    if (count > 0 || (parts.length === 0 && unit === "s")) parts.push(`${count}${unit}`);
    else if (parts.length > 0) break;
  }
  return parts.slice(0, 2).join(" ");
}

/** Node's timers overflow beyond 2^31 - 1 milliseconds and would then fire at once. */
export const MAX_TIMER_MS = 24 * 86_400_000;

/** A duration as text; the parsed value is in milliseconds. */
export const durationSchema = z.string().transform((text, context) => {
  const ms = parseDuration(text);
  if (ms === null || ms > MAX_TIMER_MS) {
    context.addIssue({
      code: "custom",
      message: "expected a duration of at most 24d, such as 90s, 15m or 1h30m",
    });
    return z.NEVER;
  }
  return ms;
});

/** A duration that is not nothing. */
export const positiveDurationSchema = durationSchema.refine((ms) => ms > 0, {
  error: "expected a duration of at least 1s",
});
