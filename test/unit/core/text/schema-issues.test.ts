import { describe, expect, test } from "vitest";
import * as z from "zod";
import { describeIssues } from "../../../../agent/core/text/schema-issues.ts";

/** What is said of an input that a schema refuses. */
function said(schema: z.ZodType, input: unknown): string {
  const { error } = schema.safeParse(input);
  if (!error) throw new Error("the schema accepts it");
  return describeIssues(error, input);
}

/** What is said of one problem at a path, in zod's words or others. */
function saidAt(path: PropertyKey[], input: unknown, message = "expected more"): string {
  return describeIssues(new z.ZodError([{ code: "custom", path, message, input }]), input);
}

describe("what a schema refused", () => {
  const hosts = z.strictObject({ hosts: z.array(z.strictObject({ name: z.string() })) });

  test("is named by its path, with what was expected and what was found", () => {
    expect(said(hosts, { hosts: [{ name: "a" }, { name: 7 }] })).toBe(
      "hosts[1].name: expected string, found 7",
    );
    expect(said(hosts, [])).toBe("top level: expected object, found []");
  });

  test("is missing if nothing is there", () => {
    expect(said(hosts, { hosts: [{}] })).toBe("hosts[0].name: missing; expected string");
    expect(saidAt(["a", "b"], { a: null })).toBe("a.b: missing; expected more");
    expect(saidAt(["a", "length"], { a: "text" })).toBe("a.length: missing; expected more");
    expect(saidAt(["a"], undefined)).toBe("a: missing; expected more");
  });

  test("is a key that nobody knows, or several", () => {
    expect(said(hosts, { hosts: [], "a b": 1, c: 2 })).toBe('top level: unknown key "a b", "c"');
  });

  test("keeps a message's own words: only zod's beginning and end are taken off", () => {
    expect(saidAt([], 1, "a text: Invalid input: odd")).toBe(
      "top level: a text: Invalid input: odd, found 1",
    );
    expect(saidAt([], 1, "Invalid input: odd, received x")).toBe("top level: odd, found 1");
    for (const words of ["odd, received\nx", "odd, received x\ny"]) {
      expect(saidAt([], 1, words)).toBe(`top level: ${words}, found 1`);
    }
  });

  test("is told of up to five problems, and how many there are besides", () => {
    const schema = z.array(z.string());
    const five = [0, 1, 2, 3, 4].map((at) => `[${at}]: expected string, found ${at}`).join("; ");
    expect(said(schema, [0, 1, 2, 3, 4])).toBe(five);
    expect(said(schema, [0, 1, 2, 3, 4, 5])).toBe(`${five}; and 1 more`);
    expect(said(schema, [0, 1, 2, 3, 4, 5, 6])).toBe(`${five}; and 2 more`);
  });

  test("is cut after 80 characters", () => {
    const quoted = (count: number): string => JSON.stringify("x".repeat(count));
    expect(saidAt([], "x".repeat(78))).toBe(`top level: expected more, found ${quoted(78)}`);
    expect(saidAt([], "x".repeat(79))).toBe(
      `top level: expected more, found ${quoted(79).slice(0, 80)}…`,
    );
  });

  test("may be nested very deeply", () => {
    let deep: unknown = [];
    for (let at = 0; at < 100_000; at++) deep = [deep];
    expect(saidAt([], deep)).toBe(`top level: expected more, found ${"[".repeat(80)}…`);
  });

  test("may be of many parts, of which few are looked at", () => {
    const many = Array.from({ length: 10_000 }, () => ({}));
    expect(saidAt([], many)).toMatch(/^top level: expected more, found \[\{\},\{\},.{73}…$/);
  });
});

describe("a secret", () => {
  test("in the place of a public key is not repeated", () => {
    const error = (secret: unknown): z.ZodError =>
      new z.ZodError([
        { code: "custom", path: ["key"], message: "a key", input: "x", params: { secret } },
      ]);
    expect(describeIssues(error(true), { key: "hush" })).toBe("key: a key");
    expect(describeIssues(error(false), { key: "told" })).toBe('key: a key, found "told"');
  });

  test("is repeated if the problem is another one than a check of ours", () => {
    const issue: z.core.$ZodIssue = {
      ...{ code: "invalid_type", expected: "string", path: ["key"], message: "odd", input: 7 },
    };
    const error = new z.ZodError([Object.assign(issue, { params: { secret: true } })]);
    expect(describeIssues(error, { key: 7 })).toBe("key: odd, found 7");
  });

  test("in an address is left out, of a value and of a path", () => {
    expect(saidAt([], "https://me:hush@mirror and ftp://you@other/x@y")).toBe(
      'top level: expected more, found "https://…@mirror and ftp://…@other/x@y"',
    );
    expect(saidAt(["https://me:hush@a", "//you@b"], {})).toBe(
      "https://…@a.//…@b: missing; expected more",
    );
  });

  test("is only what stands before the host's name", () => {
    expect(saidAt([], ["https://mirror", "me@host"])).toBe(
      'top level: expected more, found ["https://mirror","me@host"]',
    );
    expect(saidAt(["//a /b@c"], {})).toBe("//a /b@c: missing; expected more");
    expect(saidAt([], "//a b@c")).toBe('top level: expected more, found "//a b@c"');
  });
});
