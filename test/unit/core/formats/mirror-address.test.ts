import { describe, expect, it } from "vitest";
import {
  directoriesAmong,
  directoryAddress,
  directoryOf,
  looksLikeAddress,
  mirrorSchema,
  parseMirrorAddress,
} from "../../../../agent/core/formats/mirror-address.ts";

describe("a mirror's address", () => {
  it.each(["https://releases.example.org", "http://[::1]:8080/a%20b/"])(
    "%s is a web server",
    (text) => {
      expect(parseMirrorAddress(text)).toEqual({ text, kind: "web", url: new URL(text) });
    },
  );

  it.each([
    ["file:///mnt/stick", "/mnt/stick"],
    ["file:///mnt/a%20stick%3F", "/mnt/a stick?"],
  ])("%s is the directory %s", (text, directory) => {
    expect(parseMirrorAddress(text)).toEqual({ text, kind: "directory", directory });
  });

  it.each([
    ["no address", "/mnt/stick"],
    ["another protocol", "ftp://releases.example.org"],
    ["a query", "https://releases.example.org/?a=b"],
    ["a fragment", "https://releases.example.org/#a"],
    ["a user", "https://me@releases.example.org"],
    ["a password", "https://:secret@releases.example.org"],
    ["a % that encodes nothing", "https://releases.example.org/%zz"],
    ["a % that encodes nothing, of a file", "file:///mnt/%zz"],
    ["another machine's file", "file://server/mnt"],
    ["an encoded slash", "file:///mnt/a%2Fb"],
  ])("%s is refused", (_, text) => {
    expect(parseMirrorAddress(text)).toBeNull();
  });

  it.each(["/mnt/stick", "/mnt/a b?c#d%20", "/mnt/back\\slash"])(
    "of the directory %j leads back to it",
    (directory) => {
      const made = directoryAddress(directory);
      expect(made).toMatchObject({ kind: "directory", directory });
      expect(parseMirrorAddress(made.text)).toEqual(made);
    },
  );

  it.each([
    ["https://x", true],
    ["FTP://x", true],
    ["mirror", false],
    ["./a://b", false],
  ])("%s is meant as one: %s", (text, meant) => {
    expect(looksLikeAddress(text)).toBe(meant);
  });

  it("is a directory's, or is reached by a network", () => {
    const [web, stick, disk] = ["https://x.example.org", "file:///mnt/stick", "file:///a%20b"];
    expect(directoryOf(directoryAddress("/mnt/stick"))).toBe("/mnt/stick");
    expect(directoryOf({ text: web, kind: "web", url: new URL(web) })).toBeNull();
    expect(directoriesAmong([disk, web, "no address", stick])).toEqual([
      { address: disk, directory: "/a b" },
      { address: stick, directory: "/mnt/stick" },
    ]);
  });

  it("is taken in a configuration, and anything else is told what one is", () => {
    expect(mirrorSchema.parse("file:///mnt/stick")).toBe("file:///mnt/stick");
    expect(mirrorSchema.safeParse("/mnt/stick").error?.issues).toMatchObject([
      {
        message:
          "expected an https://, http:// or file:/// address without query, fragment, user or password, or " +
          "s3://BUCKET/PREFIX with at most region, endpoint and pathStyle in its query",
      },
    ]);
  });

  it.each(["a1+.-x://y", "Z://"])("%s has the form of one", (text) => {
    expect(looksLikeAddress(text)).toBe(true);
  });

  it.each(["1a://b", " a://b", "a:/b", "a_b://c", "://a"])("%s has not", (text) => {
    expect(looksLikeAddress(text)).toBe(false);
  });
});
