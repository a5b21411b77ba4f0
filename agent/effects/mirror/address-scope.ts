import { BlockList, isIPv6 } from "node:net";

/** Which network an address belongs to, as far as strangers must not lead a host there. */
export type AddressScope = "loopback" | "linkLocal" | "private" | "public";

/** IANA's special-purpose registries for IPv4 and IPv6, as far as hosts can be reached there. */
const RANGES: Record<Exclude<AddressScope, "public">, readonly [string, number][]> = {
  // Linux connects to this host for 0.0.0.0 and :: too.
  loopback: [
    ["127.0.0.0", 8],
    ["0.0.0.0", 8],
    ["::1", 128],
    ["::", 128],
  ],
  linkLocal: [
    ["169.254.0.0", 16],
    ["fe80::", 10],
  ],
  private: [
    ["10.0.0.0", 8],
    ["172.16.0.0", 12],
    ["192.168.0.0", 16],
    ["100.64.0.0", 10],
    ["192.0.0.0", 24],
    ["198.18.0.0", 15],
    ["fc00::", 7],
    ["fec0::", 10],
  ],
};

const LISTS = Object.entries(RANGES).map(([scope, ranges]) => {
  const list = new BlockList();
  for (const [network, prefix] of ranges) {
    list.addSubnet(network, prefix, isIPv6(network) ? "ipv6" : "ipv4");
  }
  return { scope: scope as AddressScope, list };
});

/** The scope of an IP address. An IPv4 address that is written as an IPv6 one counts as IPv4. */
export function addressScope(address: string): AddressScope {
  const bare = address.replace(/%.*$/, "");
  const family = isIPv6(bare) ? "ipv6" : "ipv4";
  return LISTS.find(({ list }) => list.check(bare, family))?.scope ?? "public";
}
