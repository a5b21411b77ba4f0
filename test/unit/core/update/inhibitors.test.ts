import { expect, test } from "vitest";
import { differ, parseInhibitors } from "../../../../agent/core/update/inhibitors.ts";

const map = (values: Record<string, string>): Map<string, string> =>
  new Map(Object.entries(values));

test.each<[string, Record<string, string> | null]>([
  [
    '{"dbus-implementation":"broker","systemd":"257"}',
    { "dbus-implementation": "broker", systemd: "257" },
  ],
  ["{}", {}],
  ["[]", null],
  ['{"dbus":1}', null],
  ["/nix/store/x-systemd", null],
  ["", null],
])("the inhibitors %s", (text, values) => {
  expect(parseInhibitors(text)).toEqual(values && map(values));
});

test("two systems differ if an inhibitor that both have has another value", () => {
  const old = map({ dbus: "dbus", systemd: "257" });
  expect(differ(old, map({ dbus: "broker", systemd: "257" }))).toBe(true);
  expect(differ(old, old)).toBe(false);
});

test("two systems do not differ by an inhibitor that only one has", () => {
  expect(differ(map({ dbus: "dbus" }), map({ systemd: "257" }))).toBe(false);
  expect(differ(null, map({ systemd: "257" }))).toBe(false);
  expect(differ(map({ systemd: "257" }), null)).toBe(false);
  expect(differ(null, null)).toBe(false);
});
