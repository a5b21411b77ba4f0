import fc from "fast-check";
import { describe, expect, test } from "vitest";
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

describe("a queue", () => {
  const path = (
    name: string,
    file: string,
    bytes: number,
    ...references: string[]
  ): QueuedPath => ({
    ...{ path: name, file, bytes, references },
  });
  const names = (paths: readonly QueuedPath[]): string[] => paths.map((one) => one.path);

  test("gives a file of two paths back when the second is imported, with its bytes", () => {
    const queue = new ImportQueue([path("a", "x", 5), path("b", "x", 5, "a"), path("c", "y", 7)]);
    expect(queue.isEmpty).toBe(false);
    expect(queue.ready()).toEqual([]);
    queue.arrived("x");
    const [first, second, ...more] = queue.ready();
    expect(more).toEqual([]);
    expect(queue.imported([first!])).toEqual([]);
    expect(names(queue.ready())).toEqual(["b"]);
    expect(queue.imported([second!])).toEqual([{ file: "x", bytes: 5 }]);
    queue.arrived("y");
    expect(queue.imported(queue.ready())).toEqual([{ file: "y", bytes: 7 }]);
    expect(queue.isEmpty).toBe(true);
  });

  test("holds a path until all that it refers to can come with it", () => {
    const queue = new ImportQueue([
      path("a", "1", 1),
      path("b", "2", 1, "a", "b", "valid already"),
      path("c", "3", 1, "b"),
    ]);
    queue.arrived("2");
    queue.arrived("3");
    expect(queue.ready()).toEqual([]);
    queue.arrived("1");
    expect(names(queue.ready())).toEqual(["a", "b", "c"]);
  });

  test("takes a path's NAR in another form: by the new file, the old one is not waited for", () => {
    const queue = new ImportQueue([path("a", "x", 5), path("b", "x", 5)]);
    queue.replace("a", "delta", 2);
    queue.arrived("x");
    const b = queue.ready();
    expect(names(b)).toEqual(["b"]);
    // Nobody else needs it any more.
    expect(queue.imported(b)).toEqual([{ file: "x", bytes: 5 }]);
    queue.arrived("delta");
    const a = queue.ready();
    expect(a).toEqual([path("a", "delta", 2)]);
    expect(queue.imported(a)).toEqual([{ file: "delta", bytes: 2 }]);
  });

  test("replaces nothing of a path that is not in it", () => {
    const queue = new ImportQueue([path("a", "x", 5)]);
    queue.replace("b", "x", 9);
    queue.arrived("x");
    expect(queue.imported(queue.ready())).toEqual([{ file: "x", bytes: 5 }]);
    queue.replace("a", "y", 1);
    expect(queue.isEmpty).toBe(true);
  });

  test("counts a file twice that one path had and another gets", () => {
    const queue = new ImportQueue([path("a", "x", 5), path("b", "y", 5)]);
    queue.replace("b", "x", 5);
    queue.arrived("x");
    const [a, b] = queue.ready();
    expect(queue.imported([a!])).toEqual([]);
    expect(queue.imported([b!])).toEqual([{ file: "x", bytes: 5 }]);
  });
});
