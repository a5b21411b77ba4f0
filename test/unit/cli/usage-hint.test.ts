import { expect, test } from "vitest";
import { createProgram } from "../../../agent/cli/program.ts";

/** What a command line ends with, whether it is refused by the parser or by the command. */
async function refusalOf(...words: string[]): Promise<unknown> {
  let result: Promise<unknown> = Promise.resolve("no command was chosen");
  const program = await createProgram({
    signal: new AbortController().signal,
    finish: (promise) => {
      result = promise;
    },
  });
  try {
    program.parse(["node", "nixos-pull", ...words]);
    return await result;
  } catch (error) {
    return error;
  }
}

test.each([
  ["the parser", ["fleet", "--nosuch"], "nixos-pull fleet"],
  ["the command", ["fleet", "/nowhere", "--trust-new"], "nixos-pull fleet"],
  ["a command of a group", ["release", "show", "-m", "http://x"], "nixos-pull release show"],
])("a refusal by %s names the help of that very command", async (_, words, title) => {
  expect(await refusalOf(...words)).toMatchObject({
    code: "USAGE",
    message: expect.stringMatching(new RegExp(`; \`${title} --help\` shows what is possible$`)),
  });
});

test("only the command that is asked for is loaded, if that is known", async () => {
  const context = { signal: new AbortController().signal, finish: () => undefined };
  const namesOf = async (...words: string[]): Promise<string[]> =>
    (await createProgram(context, words)).commands.map((command) => command.name());
  expect(await namesOf("run", "--config", "x")).toEqual(["run"]);
  expect(await namesOf("deadline")).toEqual(["deadline"]);
  const all = await namesOf();
  expect(all).toContain("publish");
  for (const word of ["help", "--help", "rnu", "constructor", "completion"]) {
    expect(await namesOf(word)).toEqual(all);
  }
});
