import { expect, test } from "vitest";
import { filterHosts } from "../../../../agent/operator/publish/host-filter.ts";
import { failureOf } from "../../../support/failure.ts";

const NAMES = ["db1", "web1", "web1.example.org", "web2", "webx1"];
const filtered = (only: string[], except: string[] = []): string[] =>
  filterHosts(NAMES, { only, except }, "./hosts.nix");

test("without patterns all hosts are left, in their order", () => {
  expect(filtered([])).toEqual(NAMES);
});

test.each<[only: string[], except: string[], left: string[]]>([
  [["web1"], [], ["web1"]],
  [["web?"], [], ["web1", "web2"]],
  [["web*"], ["web2"], ["web1", "web1.example.org", "webx1"]],
  [["*.example.org"], [], ["web1.example.org"]],
  [["*1"], ["web*"], ["db1"]],
  [["web2", "db1"], [], ["db1", "web2"]],
  [[], ["web*"], ["db1"]],
])("only %j except %j", (only, except, left) => {
  expect(filtered(only, except)).toEqual(left);
});

test.each([
  "web",
  "w.b1",
  "web[12]",
  "(web1)",
  "web1|db1",
  "WEB1",
  "^web1",
  "web1.example.or",
  "\\*",
])("%s fits no host, and is refused", (pattern) => {
  for (const failure of [
    failureOf(() => filtered([pattern])),
    failureOf(() => filtered([], [pattern])),
  ]) {
    expect(failure.code).toBe("USAGE");
    expect(failure.message).toContain(`${JSON.stringify(pattern)}, which fits none of db1, web1`);
  }
});

test("a name that no host can have is refused, if it is left", () => {
  const names = ["web1", "a b"];
  const failure = failureOf(() => filterHosts(names, { only: [], except: [] }, ".#fleet"));
  expect(failure).toMatchObject({ code: "CONFIG_INVALID" });
  expect(failure.message).toBe('.#fleet: expected names of hosts, found "a b"');
  expect(filterHosts(names, { only: [], except: ["a *"] }, ".#fleet")).toEqual(["web1"]);
});
