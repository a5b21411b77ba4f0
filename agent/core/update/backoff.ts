/** Wait before attempt `attempts + 1`: doubles from `base`, capped at `max`, ± 20 % at random. */
export function backoffMs(
  attempts: number,
  { base, max }: { base: number; max: number },
  random: number,
): number {
  const doubled = base * 2 ** Math.min(attempts - 1, 30);
  return Math.round(Math.min(doubled, max) * (0.8 + 0.4 * random));
}
