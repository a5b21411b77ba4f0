import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { NarWalker } from "../../../../agent/core/formats/nar-walk.ts";
import { narOf, type NarNode } from "../../../support/nar.ts";

describe("NarWalker", () => {
  /** Files with their contents, as walked. */
  function walk(pieces: readonly Buffer[]): Record<string, string> {
    const files: [string, string][] = [];
    const walker = new NarWalker({
      onFile: (path) => files.push([path, ""]),
      onContents: (piece) => {
        const last = files.at(-1);
        if (last) last[1] += piece.toString("latin1");
      },
    });
    for (const piece of pieces) walker.push(piece);
    return Object.fromEntries(files);
  }

  test("knows the files of a tree, whatever they are called", () => {
    const long = "ü".repeat(50_000);
    const tree: NarNode = {
      contents: { ")": "contents", name: { "(": "(" } },
      empty: {},
      large: long,
      link: ["contents"],
      nothing: "",
    };
    const large = Buffer.from(long).toString("latin1");
    const files = { "contents/)": "contents", "contents/name/(": "(", large, nothing: "" };
    expect(walk([narOf(tree)])).toEqual(files);
    expect(walk(Array.from(narOf(tree), (byte) => Buffer.from([byte])))).toEqual(files);
  });

  test("is not led astray by links and names that look like its own words", () => {
    const tree: NarNode = {
      a: [")"],
      b: ["("],
      c: ["contents"],
      entry: { type: { name: "1" }, target: "22" },
      node: "333",
    };
    const files = { "entry/type/name": "1", "entry/target": "22", node: "333" };
    expect(walk([narOf(tree)])).toEqual(files);
    for (const size of [1, 3, 7, 8, 9, 16]) {
      const nar = narOf(tree);
      const count = Math.ceil(nar.length / size);
      const pieces = Array.from({ length: count }, (_, at) =>
        nar.subarray(at * size, at * size + size),
      );
      expect(walk(pieces)).toEqual(files);
    }
  });

  test("walks a store path that is a file itself", () => {
    expect(walk([narOf("contents")])).toEqual({ "": "contents" });
  });

  test("stops at a name that is longer than any path", () => {
    const tree = (length: number): NarNode => ({ ["a".repeat(length)]: "1", b: "2" });
    expect(walk([narOf(tree(4096))])).toEqual({ ["a".repeat(4096)]: "1", b: "2" });
    expect(walk([narOf(tree(4097))])).toEqual({});
  });

  test("does not fail on anything", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 })), (pieces) => {
        expect(() => walk(pieces.map((piece) => Buffer.from(piece)))).not.toThrow();
      }),
    );
  });
});
