const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** Bytes with a binary unit: `512 B`, `1.6 GiB`. */
export function formatBytes(bytes: number): string {
  const step = stepOf(bytes);
  const value = bytes / 1024 ** step;
  return `${step === 0 ? value : value.toFixed(1)} ${BYTE_UNITS[step]}`;
}

/** How much of a whole is there, in the unit of the whole: `340 of 812 MiB`, `0.3 of 1.6 GiB`. */
export function formatPart(done: number, total: number): string {
  const step = stepOf(total);
  const digits = step === 0 || total / 1024 ** step >= 100 ? 0 : 1;
  const [part, whole] = [done, total].map((bytes) => (bytes / 1024 ** step).toFixed(digits));
  return `${part} of ${whole} ${BYTE_UNITS[step]}`;
}

/** A rate: `12.0 MiB/s`. */
export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(Math.round(bytesPerSecond))}/s`;
}

/** A number with its noun: `1 path`, `2 paths`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Which unit suits a number of bytes. */
function stepOf(bytes: number): number {
  return bytes < 1 ? 0 : Math.min(BYTE_UNITS.length - 1, Math.floor(Math.log2(bytes) / 10));
}
