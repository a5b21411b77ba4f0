import { expect, test } from "vitest";
import {
  EMPTY_STICK_CONTENTS,
  MAX_STICK_CONTENTS_BYTES,
  STICK_CONTENTS_FILE,
  packedAlso,
  packedHosts,
  packedOnly,
  parseStickContents,
} from "../../../../agent/core/formats/stick-contents.ts";
import { failureOf } from "../../../support/failure.ts";

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

test("a release that is packed whole joins nothing else, and other releases stay", () => {
  const both = packedAlso(
    packedAlso(EMPTY_STICK_CONTENTS, A, hosts({ web1: 1 }), false),
    B,
    hosts({ web1: 2 }),
    false,
  );
  expect(packedAlso(both, A, null, false).releases).toEqual({
    [B]: { hosts: { web1: { members: 2 } } },
  });
  // It was there whole before: what is packed of it now is there already.
  expect(packedAlso(both, "c".repeat(64), hosts({ web1: 1 }), true)).toEqual(both);
  expect(packedHosts(both, "c".repeat(64))).toBeNull();
  expect(packedHosts(both, "constructor")).toBeNull();
});

test.each([
  [3, 5, 5],
  [5, 3, 5],
  [null, 3, null],
  [3, null, null],
  [0, 0, 0],
])("of %j and then %j members it has %j", (first, second, most) => {
  const before = packedAlso(EMPTY_STICK_CONTENTS, A, hosts({ web1: first }), false);
  const after = packedAlso(before, A, hosts({ web1: second }), true);
  expect(packedHosts(after, A)).toEqual(hosts({ web1: most }));
});

test("a list that is read may have any number of members, or all", () => {
  const list = (members: unknown, more = {}): Buffer =>
    Buffer.from(
      JSON.stringify({
        formatVersion: 1,
        releases: { [A]: { hosts: { web1: { members } } } },
        ...more,
      }),
    );
  for (const members of [0, 7, null]) {
    expect(packedHosts(parseStickContents(list(members), "l"), A)).toEqual(
      hosts({ web1: members }),
    );
  }
  const refused = (bytes: Buffer) => failureOf(() => parseStickContents(bytes, "list"));
  for (const members of [-1, 0.5, "1", undefined]) {
    expect(refused(list(members)).code).toBe("MIRROR_STATUS");
  }
  for (const more of [{ formatVersion: 2 }, { more: 1 }]) {
    expect(refused(list(1, more)).code).toBe("MIRROR_STATUS");
  }
  expect(refused(list(-1)).message).toContain(`list: releases.${A}.hosts.web1.members: `);
  expect(refused(Buffer.from("{")).message).toBe("list: expected JSON");
  expect(refused(Buffer.from("{")).code).toBe("MIRROR_STATUS");
  expect(refused(Buffer.from("{")).cause).toBeInstanceOf(SyntaxError);
});

test.each(["", "[]", '{"formatVersion":1}', '{"formatVersion":1,"releases":{"x":{"hosts":{}}}}'])(
  "%j is no list of contents",
  (text) => {
    expect(() => parseStickContents(Buffer.from(text), "list")).toThrow("list: ");
  },
);

test("the list has its name on every stick, and room for 100,000 hosts", () => {
  expect(STICK_CONTENTS_FILE).toBe("stick-contents.json");
  expect(MAX_STICK_CONTENTS_BYTES).toBe(33_554_432);
});
