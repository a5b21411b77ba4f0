import { availableParallelism } from "node:os";

/**
 * Does `work` for every item, begun in their order, at most `atOnce` at a time: as many as there
 * are cores, unless said otherwise. Gives the results in the items' order. After a failure nothing
 * more is begun; it is thrown once everything that was begun has ended.
 */
export async function parallelMap<T, R>(
  items: readonly T[],
  work: (item: T) => Promise<R>,
  { atOnce = availableParallelism() }: { readonly atOnce?: number } = {},
): Promise<R[]> {
  const results: R[] = [];
  const queue = items.entries();
  const failures: unknown[] = [];
  const worker = async (): Promise<void> => {
    for (const [at, item] of queue) {
      try {
        results[at] = await work(item);
      } catch (error) {
        failures.push(error);
      }
      if (failures.length > 0) return;
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, worker));
  if (failures.length > 0) throw failures[0];
  return results;
}
