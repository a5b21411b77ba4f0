/** Waits are this much longer or shorter at random, so that hosts do not retry together. */
const SPREAD = 0.2;

/** Wait before attempt `attempts + 1`: doubles from `base`, capped at `max`, ± 20 % at random. */
export function backoffMs(
  attempts: number,
  { base, max }: { base: number; max: number },
  random: number,
): number {
  const doubled = base * 2 ** Math.min(attempts - 1, 30);
  return Math.round(Math.min(doubled, max) * (1 - SPREAD + 2 * SPREAD * random));
}

/** The longest wait that `backoffMs` can give, in milliseconds. */
export function longestBackoff(max: number): number {
  return Math.round(max * (1 + SPREAD));
}
