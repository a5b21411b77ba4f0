import { availableParallelism } from "node:os";

/**
 * Does `work` for every item, begun in their order, as many at a time as there are cores.
 * Gives the results in the items' order. After a failure nothing more is begun; it is thrown
 * once what was under way has ended.
 */
export async function parallelMap<T, R>(
  items: readonly T[],
  work: (item: T) => Promise<R>,
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
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  if (failures.length > 0) throw failures[0];
  return results;
}
