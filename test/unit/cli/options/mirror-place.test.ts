import { resolve } from "node:path";
import { expect, test } from "vitest";
import { mirrorDirectory } from "../../../../agent/cli/options/mirror-place.ts";
import { PullError } from "../../../../agent/core/errors.ts";

test.each([
  ["mirror", resolve("mirror")],
  ["/srv/mirror", "/srv/mirror"],
  ["/srv/a:b/mirror", "/srv/a:b/mirror"],
  ["./web@host:mirror", resolve("web@host:mirror")],
  ["file:///srv/mirror", "/srv/mirror"],
  ["file:///srv/with%20space", "/srv/with space"],
])("a release may be written to %s", (text, directory) => {
  expect(mirrorDirectory(text)).toBe(directory);
});

test.each([
  "http://releases.example.org",
  "https://user:secret@releases.example.org/fleet",
  "s3://bucket/prefix",
  "ssh://web/srv/mirror",
  "file://web/srv/mirror",
  "web@releases.example.org:/srv/mirror",
  "web@releases.example.org:mirror",
  "releases:/srv/mirror",
])("%s is no directory, so nothing is made of it, and the way to upload is named", (text) => {
  const refused = (): string => mirrorDirectory(text);
  expect(refused).toThrow(PullError);
  expect(refused).toThrow(/expected a directory.*`archives` first, `channels` last/s);
  expect(refused).not.toThrow(/secret/);
});
