import { describe, expect, test } from "vitest";
import {
  plain,
  render,
  screenOf,
  styled,
  table,
  type Screen,
} from "../../../../agent/cli/display/screen.ts";

const WIDE: Screen = { columns: Infinity, colour: false };
const NARROW: Screen = { columns: 20, colour: false };

describe("what a terminal is", () => {
  test.each([
    ["a pipe", {}, {}, { columns: Infinity, colour: false }],
    ["a terminal", { isTTY: true, columns: 100 }, {}, { columns: 100, colour: true }],
    ["a narrow one", { isTTY: true, columns: 40 }, {}, { columns: 80, colour: true }],
    ["a wide one", { isTTY: true, columns: 400 }, {}, { columns: 160, colour: true }],
    ["NO_COLOR", { isTTY: true }, { NO_COLOR: "1" }, { columns: 80, colour: false }],
    ["an empty NO_COLOR", { isTTY: true }, { NO_COLOR: "" }, { columns: 80, colour: true }],
    ["a dumb terminal", { isTTY: true }, { TERM: "dumb" }, { columns: 80, colour: false }],
    ["FORCE_COLOR in a pipe", {}, { FORCE_COLOR: "1" }, { columns: Infinity, colour: true }],
    ["FORCE_COLOR=0", { isTTY: true }, { FORCE_COLOR: "0" }, { columns: 80, colour: false }],
  ])("%s", (_, stream, env, screen) => {
    expect(screenOf(stream, env)).toEqual(screen);
  });
});

describe("colour", () => {
  test("begins and ends with each piece of text", () => {
    const line = [styled("good", "●"), " ", styled("strong", "web1")];
    expect(render([line], { ...WIDE, colour: true })).toBe("\x1b[32m●\x1b[39m \x1b[1mweb1\x1b[22m");
    expect(render([line], WIDE)).toBe("● web1");
    expect(plain(line)).toBe("● web1");
  });

  test("is not what somebody else's text brings", () => {
    const text = render([styled("bad", "\x1b[8mhidden"), "\x1b[31mred"], { ...WIDE, colour: true });
    expect(text).toBe("\x1b[31m\ufffd[8mhidden\x1b[39m\n\ufffd[31mred");
  });
});

describe("long lines", () => {
  test("are broken between words and go on below their first word", () => {
    expect(render(["  one two three four five six"], NARROW)).toBe(
      "  one two three four\n  five six",
    );
    expect(render(["one two three four five six"], NARROW, { hang: 2 })).toBe(
      "one two three four\n  five six",
    );
  });

  test("keep words that are longer than the line, and styles", () => {
    const word = "/nix/store/0123456789012345";
    expect(render([`see ${word} now`], NARROW)).toBe(`see\n${word}\nnow`);
    expect(render([[styled("bad", "one two three four five")]], { ...NARROW, colour: true })).toBe(
      "\x1b[31mone two three four\x1b[39m\n\x1b[31mfive\x1b[39m",
    );
  });

  test("are whole where nothing has columns, and lines of a message stay apart", () => {
    expect(render([`one\n${"word ".repeat(50)}`], WIDE)).toBe(`one\n${"word ".repeat(50).trim()}`);
  });
});

describe("a table", () => {
  test("has columns as wide as their widest cell, and no blanks at the end", () => {
    expect(render(table([["a", "bb", ""], ["ccc"], ["d", "e", "f"]], WIDE), WIDE)).toBe(
      "a  bb\nccc\nd  e   f",
    );
  });

  test("lets no cell do anything to the terminal", () => {
    const rows = [["a\u001b[8m\nb", "\u001b[2Jc"]];
    expect(render(table(rows, WIDE), WIDE)).toBe("a\ufffd[8m b  \ufffd[2Jc");
  });

  test("keeps a word that is too long beside its name", () => {
    const word = "https://mirror.example.org/a";
    expect(render(table([["mirror", word]], NARROW), NARROW)).toBe(`mirror  ${word}`);
  });

  test("breaks the last column within itself", () => {
    const rows = [
      ["wait", styled("waiting", "one two three four five six")],
      ["", "end"],
    ];
    const screen = { ...NARROW, columns: 26 };
    expect(render(table(rows, screen), screen)).toBe(
      "wait  one two three four\n      five six\n      end",
    );
  });
});
