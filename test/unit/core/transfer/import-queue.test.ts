import fc from "fast-check";
import { expect, test } from "vitest";
import {
  ImportQueue,
  topmost,
  type QueuedPath,
} from "../../../../agent/core/transfer/import-queue.ts";

/** Paths in topological order, some of which share a file. */
const closures: fc.Arbitrary<QueuedPath[]> = fc
  .array(
    fc.record({ references: fc.array(fc.nat({ max: 9 }), { maxLength: 3 }), file: fc.nat(6) }),
    { minLength: 1, maxLength: 10 },
  )
  .map((paths) =>
    paths.map(({ references, file }, at) => ({
      path: `p${at}`,
      file: `f${file}`,
      bytes: 1,
      // Itself included, as for paths that know where they are.
      references: [...new Set(references.filter((to) => to <= at))].map((to) => `p${to}`),
    })),
  );

test("whatever order files come in, every path is imported once, after all it refers to", () => {
  fc.assert(
    fc.property(closures, fc.array(fc.nat(), { maxLength: 12 }), (paths, order) => {
      const queue = new ImportQueue(paths);
      const valid = new Set<string>();
      const removed: string[] = [];
      const files = [...new Set(paths.map(({ file }) => file))];
      const shuffled = files.toSorted(
        (a, b) => (order[files.indexOf(a)] ?? 0) - (order[files.indexOf(b)] ?? 0),
      );
      const here = new Set<string>();
      for (const file of shuffled) {
        queue.arrived(file);
        here.add(file);
        const ready = queue.ready();
        for (const { path, file: needed, references } of ready) {
          expect(here.has(needed)).toBe(true);
          expect(valid.has(path)).toBe(false);
          valid.add(path);
          for (const reference of references) expect(valid.has(reference)).toBe(true);
        }
        removed.push(...queue.imported(ready).map((gone) => gone.file));
        expect(queue.ready()).toEqual([]);
      }
      expect(queue.isEmpty).toBe(true);
      expect(valid.size).toBe(paths.length);
      // Each file is done with once, and only when nobody needs it.
      expect(removed.toSorted()).toEqual(files.toSorted());
    }),
  );
});

test("the topmost paths of a list are those that nothing else in it refers to", () => {
  const path = (name: string, ...references: string[]): QueuedPath => ({
    ...{ path: name, file: name, bytes: 1, references },
  });
  const list = [path("a", "a"), path("b", "a"), path("c"), path("d", "b", "elsewhere", "d")];
  expect(topmost(list)).toEqual(["c", "d"]);
});
