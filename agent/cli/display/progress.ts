import type { FetchProgress } from "../../core/ports.ts";
import { formatPart, formatRate } from "../../core/text/quantity.ts";
import { describeSpan } from "../../core/text/times.ts";

/** How far something is: `340 of 812 MiB, 12.0 MiB/s, 39 s left`. */
export function describeProgress({ received, total }: FetchProgress, rate: number | null): string {
  const part = formatPart(received, total);
  if (rate === null) return part;
  const left = total - received;
  const end = rate < 1 || left <= 0 ? "" : `, ${describeSpan((left / rate) * 1000)} left`;
  return `${part}, ${formatRate(rate)}${end}`;
}
