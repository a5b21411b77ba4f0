import { expect, test } from "vitest";
import { proxyFor } from "../../../../agent/effects/mirror/proxy.ts";

const HTTPS = new URL("https://mirror.example.org/m");

test.each<[string, Record<string, string>, string | null]>([
  ["no variable", {}, null],
  ["HTTPS_PROXY", { HTTPS_PROXY: "http://p:1" }, "p:1"],
  ["the small one first", { https_proxy: "http://q:1", HTTPS_PROXY: "http://p:1" }, "q:1"],
  ["HTTP_PROXY for both", { HTTP_PROXY: "http://p:1" }, "p:1"],
  ["NO_PROXY by name", { HTTPS_PROXY: "http://p:1", NO_PROXY: "mirror.example.org" }, null],
  ["NO_PROXY by domain", { HTTPS_PROXY: "http://p:1", NO_PROXY: "a, .example.org" }, null],
  [
    "NO_PROXY with the port",
    { HTTPS_PROXY: "http://p:1", NO_PROXY: "mirror.example.org:443" },
    null,
  ],
  [
    "NO_PROXY with another port",
    { HTTPS_PROXY: "http://p:1", NO_PROXY: "mirror.example.org:8443" },
    "p:1",
  ],
  ["NO_PROXY for all", { HTTPS_PROXY: "http://p:1", NO_PROXY: "*" }, null],
  ["NO_PROXY of the parent alone", { HTTPS_PROXY: "http://p:1", NO_PROXY: "example.org" }, "p:1"],
  ["a proxy that is no address", { HTTPS_PROXY: "nonsense" }, null],
])("the proxy by %s", (_, env, expected) => {
  expect(proxyFor(HTTPS, env)?.host ?? null).toBe(expected);
});
