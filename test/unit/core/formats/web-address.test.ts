import { describe, expect, test } from "vitest";
import {
  hasUserInfo,
  httpAddressSchema,
  parseUrl,
} from "../../../../agent/core/formats/web-address.ts";

describe("a URL", () => {
  test("is parsed, alone or from a base; what is none is null", () => {
    expect(parseUrl("https://a.example/b")?.href).toBe("https://a.example/b");
    expect(parseUrl("../c", new URL("https://a.example/b/d"))?.href).toBe("https://a.example/c");
    expect(parseUrl("../c")).toBeNull();
    expect(parseUrl("https://")).toBeNull();
  });

  test.each([
    ["https://a.example", false],
    ["https://me@a.example", true],
    ["https://:secret@a.example", true],
    ["https://me:secret@a.example", true],
  ])("%s has a user or a password: %s", (text, has) => {
    expect(hasUserInfo(new URL(text))).toBe(has);
  });
});

describe("an HTTP address", () => {
  test.each(["http://localhost:80/x?y#z", "https://a.example"])("%s is one", (text) => {
    expect(httpAddressSchema.parse(text)).toBe(text);
  });

  test.each(["ftp://a.example", "file:///a", "a.example", "http://me@a.example", "https://:x@a.b"])(
    "%s is none",
    (text) => {
      expect(httpAddressSchema.safeParse(text).error?.issues).toMatchObject([
        { message: "expected an http:// or https:// address without user and password" },
      ]);
    },
  );
});
