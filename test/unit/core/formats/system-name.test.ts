import { expect, test } from "vitest";
import { systemNameOf } from "../../../../agent/core/formats/system-name.ts";

test.each([
  ["its hostname", { hostname: "web1\n", config: null }, "web1"],
  [
    "the agent's own name before its hostname",
    { hostname: "web1\n", config: '{"hostname":"a.b"}' },
    "a.b",
  ],
  [
    "its hostname if the agent's configuration has none",
    { hostname: "web1", config: "{}" },
    "web1",
  ],
  ["its hostname if the configuration is broken", { hostname: "web1", config: "{" }, "web1"],
  [
    "its hostname if the configuration is none",
    { hostname: "web1", config: '{"hostname":1}' },
    "web1",
  ],
  ["none if the hostname is empty", { hostname: "\n", config: "{}" }, null],
  ["none if nothing is there", { hostname: null, config: null }, null],
])("a system has %s", (_, files, name) => {
  expect(systemNameOf(files)).toBe(name);
});
