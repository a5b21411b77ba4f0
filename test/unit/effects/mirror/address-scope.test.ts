import { expect, test } from "vitest";
import { addressScope } from "../../../../agent/effects/mirror/address-scope.ts";

test.each([
  ["127.0.0.1", "loopback"],
  ["127.255.255.254", "loopback"],
  ["0.0.0.0", "loopback"],
  ["::1", "loopback"],
  ["::", "loopback"],
  ["::ffff:127.0.0.1", "loopback"],
  ["::ffff:7f00:1", "loopback"],
  ["169.254.169.254", "linkLocal"],
  ["fe80::1", "linkLocal"],
  ["fe80::1%eth0", "linkLocal"],
  ["10.0.0.1", "private"],
  ["172.16.0.1", "private"],
  ["172.31.255.255", "private"],
  ["192.168.0.1", "private"],
  ["100.64.0.1", "private"],
  ["::ffff:10.0.0.1", "private"],
  ["fd77::1", "private"],
  ["172.32.0.1", "public"],
  ["128.0.0.1", "public"],
  ["192.0.2.1", "public"],
  ["2001:db8::1", "public"],
  ["::ffff:192.0.2.1", "public"],
])("%s is %s", (address, scope) => {
  expect(addressScope(address)).toBe(scope);
});
