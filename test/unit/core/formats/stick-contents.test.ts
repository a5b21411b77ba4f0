import { expect, test } from "vitest";
import {
  EMPTY_STICK_CONTENTS,
  packedAlso,
  packedHosts,
  packedOnly,
  parseStickContents,
} from "../../../../agent/core/formats/stick-contents.ts";

const A = "a".repeat(64);
const B = "b".repeat(64);

const hosts = (members: Record<string, number | null>) =>
  new Map(Object.entries(members).map(([name, count]) => [name, { members: count }]));

test("hosts that are packed later join those that were, with the most that either had", () => {
  const first = packedAlso(EMPTY_STICK_CONTENTS, A, hosts({ web1: 3, web2: null }), false);
  const both = packedAlso(first, A, hosts({ web1: 5, web2: 2, web3: 1 }), true);
  expect(packedHosts(both, A)).toEqual(hosts({ web1: 5, web2: null, web3: 1 }));
});

test("a release that is packed whole is on no list, and stays so", () => {
  const part = packedAlso(EMPTY_STICK_CONTENTS, A, hosts({ web1: 3 }), false);
  expect(packedHosts(packedAlso(part, A, null, true), A)).toBeNull();
  expect(packedHosts(packedAlso(EMPTY_STICK_CONTENTS, A, hosts({ web1: 3 }), true), A)).toBeNull();
});

test("what is no longer there is forgotten", () => {
  const list = packedAlso(
    packedAlso(EMPTY_STICK_CONTENTS, A, hosts({ web1: 1 }), false),
    B,
    hosts({ web1: 1 }),
    false,
  );
  const left = packedOnly(list, new Set([B]));
  expect(Object.keys(left.releases)).toEqual([B]);
  expect(parseStickContents(Buffer.from(JSON.stringify(left)), "a")).toEqual(left);
});

test.each(["", "[]", '{"formatVersion":1}', '{"formatVersion":1,"releases":{"x":{"hosts":{}}}}'])(
  "%j is no list of contents",
  (text) => {
    expect(() => parseStickContents(Buffer.from(text), "list")).toThrow("list: ");
  },
);
