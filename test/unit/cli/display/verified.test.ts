import { expect, test } from "vitest";
import { render } from "../../../../agent/cli/display/screen.ts";
import { verifiedLines } from "../../../../agent/cli/display/verified.ts";
import { Times } from "../../../../agent/core/text/times.ts";
import type {
  VerifiedHost,
  VerifiedMirror,
} from "../../../../agent/operator/mirror/verify-mirror.ts";
import { FLEET_NOW, sampleManifest, sampleToplevel } from "../../../support/sample-fleet.ts";

const PIPE = { columns: Infinity, colour: false };
const times = new Times({ now: FLEET_NOW, zone: "UTC" });
const host = (hostname: string): VerifiedHost => ({
  ...{ hostname, toplevel: sampleToplevel(hostname), archive: "a".repeat(64), paths: 5 },
});
const verified = (hosts: readonly VerifiedHost[], more: Partial<VerifiedMirror> = {}): string => {
  const manifest = sampleManifest(hosts.map(({ hostname }) => hostname));
  const signed = { manifest, digest: "d".repeat(64), signedBy: ["fleet-1"] };
  const all = { signed, expired: false, hosts: [...hosts], older: [], ...more };
  return render(verifiedLines(all, times, PIPE), PIPE);
};

test("a mirror on which all is right is told so first", () => {
  expect(verified([host("db1"), host("web1")])).toMatch(
    /^● Release 12 of stable: all is right for 2 hosts, signed by fleet-1, made .* ago, good until .*\ndb1 {3}ok {2}5 paths {2}[0-9a-z]{7}-db1\nweb1 {2}ok {2}5 paths {2}[0-9a-z]{7}-web1$/,
  );
});

test("hosts whose archives are wrong come first, and an expired release is told", () => {
  const wrong = { ...host("web1"), code: "ARCHIVE_CORRUPT" as const, message: "other bytes" };
  const lines = verified([host("db1"), wrong], { expired: true }).split("\n");
  expect(lines[0]).toMatch(/: 1 of 2 hosts is wrong, .* EXPIRED /);
  expect(lines[1]).toBe("web1  ARCHIVE_CORRUPT  other bytes");
  expect(lines[2]).toMatch(/^db1 {3}ok {15}5 paths/);
});

test("a release for older agents that is gone is no good mirror", () => {
  const one = { epoch: 0, sequence: 3, digest: "e".repeat(64), until: FLEET_NOW.toISOString() };
  const gone = { ...one, hosts: [], code: "MIRROR_NOT_FOUND" as const, message: "no such file" };
  const text = verified([host("db1")], { older: [gone] });
  expect(text).toMatch(/^● Release 12 of stable: a release for older agents is wrong, /);
  expect(text).toMatch(/\nRelease 3, for older agents until .*: MIRROR_NOT_FOUND: no such file$/);
});
