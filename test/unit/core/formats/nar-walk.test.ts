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

  test("does not fail on anything", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 })), (pieces) => {
        expect(() => walk(pieces.map((piece) => Buffer.from(piece)))).not.toThrow();
      }),
    );
  });
});
