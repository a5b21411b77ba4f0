import { describe, expect, test } from "vitest";
import {
  MAX_CHECKS,
  healthCheckSchema,
  healthSettingsSchema,
  type HealthCheck,
} from "../../../../agent/core/formats/health-check.ts";

const COMMAND = { kind: "command", name: "answers", command: ["/bin/true"] };
const HTTP = { kind: "http", name: "serves", url: "https://app.example.org/health" };
const TCP = { kind: "tcp", name: "listens", host: "localhost", port: 22 };

function passes(check: unknown): boolean {
  return healthCheckSchema.safeParse(check).success;
}

describe("a check", () => {
  test.each<[unknown, Partial<HealthCheck>]>([
    [COMMAND, { timeout: "10s" }],
    [HTTP, { timeout: "10s", status: 200 }],
    [TCP, { timeout: "10s" }],
  ])("%j has defaults for the rest", (check, defaults) => {
    expect(healthCheckSchema.parse(check)).toEqual({ ...(check as object), ...defaults });
  });

  test.each<[unknown, string, unknown[]]>([
    [COMMAND, "name", ["x", "x".repeat(100)]],
    [COMMAND, "timeout", ["1s", "24d"]],
    [COMMAND, "command", [Array(64).fill("x"), ["x".repeat(4096)]]],
    [HTTP, "status", [100, 599]],
    [TCP, "host", ["x", "x".repeat(253)]],
    [TCP, "port", [1, 65_535]],
  ])("%j: %s may be at its bounds", (check, key, values) => {
    for (const value of values) expect(passes({ ...(check as object), [key]: value })).toBe(true);
  });

  test("with an argument, a status or a host beyond its bounds is refused", () => {
    expect(passes({ ...COMMAND, command: ["x".repeat(4097)] })).toBe(false);
    expect(passes({ ...HTTP, status: 600 })).toBe(false);
    expect(passes({ ...HTTP, method: "GET" })).toBe(false);
    expect(passes({ ...TCP, host: "x".repeat(254) })).toBe(false);
    expect(passes({ ...TCP, port: 1.5 })).toBe(false);
  });

  test("says what is wrong with its time limit, and what each kind is for", () => {
    const { error } = healthCheckSchema.safeParse({ ...TCP, timeout: "0s" });
    expect(error?.issues).toMatchObject([
      { path: ["timeout"], message: "expected a duration between 1s and 24d" },
    ]);
    const [command, http, tcp] = healthCheckSchema.options;
    for (const { description } of [command, http, tcp, ...Object.values(command.shape).slice(1)]) {
      expect(description).toMatch(/^[A-Z].{10,}\.$/);
    }
    expect(http.shape.status.description).toBe("The status that must come.");
  });

  test("is the same once it has travelled as JSON", () => {
    for (const check of [COMMAND, HTTP, TCP]) {
      const parsed = healthCheckSchema.parse({ ...check, timeout: "1m30s" });
      expect(parsed.timeout).toBe("1m30s");
      expect(healthCheckSchema.parse(JSON.parse(JSON.stringify(parsed)))).toEqual(parsed);
    }
  });

  test.each([
    ["of an unknown kind", { ...COMMAND, kind: "script" }],
    ["without a kind", { name: "x", command: ["true"] }],
    ["without a name", { ...TCP, name: "" }],
    ["with a name beyond all bounds", { ...TCP, name: "x".repeat(101) }],
    ["with a field of another", { ...COMMAND, port: 22 }],
    ["with a field of none", { ...TCP, retries: 3 }],
    ["with a bare number of seconds", { ...TCP, timeout: "10" }],
    ["with a number as its time limit", { ...TCP, timeout: 10 }],
    ["with a time limit in words", { ...TCP, timeout: "10 seconds" }],
    ["that runs nothing", { ...COMMAND, command: [] }],
    ["that runs a line for a shell", { ...COMMAND, command: "true && false" }],
    ["with too many arguments", { ...COMMAND, command: Array(65).fill("x") }],
    ["of no address", { ...HTTP, url: "app" }],
    ["of a file", { ...HTTP, url: "file:///etc/passwd" }],
    ["of a status that HTTP has not", { ...HTTP, status: 99 }],
    ["of half a status", { ...HTTP, status: 200.5 }],
    ["of no host", { ...TCP, host: "" }],
    ["of port 0", { ...TCP, port: 0 }],
    ["of a port beyond the last", { ...TCP, port: 65_536 }],
  ])("%s is refused", (_, check) => {
    expect(passes(check)).toBe(false);
  });

  test.each([
    "http://localhost:8080/health",
    "http://127.0.0.1:8080/",
    "http://[::1]/",
    "http://web1/",
  ])("may ask for %s", (url) => {
    expect(passes({ ...HTTP, url })).toBe(true);
  });

  test.each(["0s", "25d", "60d", "99999999999999d"])(
    "is refused with the time limit %s, as every other duration",
    (timeout) => {
      expect(passes({ ...TCP, timeout })).toBe(false);
    },
  );
});

describe("the host's settings", () => {
  test("have defaults in milliseconds", () => {
    expect(healthSettingsSchema.parse({})).toEqual({
      ...{ settle: 10_000, timeout: 120_000, interval: 5_000, mirror: true },
      ...{ ignoreUnits: [], checks: [] },
    });
  });

  test("may ignore units by globs, so many and no more", () => {
    const takes = (...ignoreUnits: unknown[]): boolean =>
      healthSettingsSchema.safeParse({ ignoreUnits }).success;
    expect(takes("a*.service", "x".repeat(256), ...Array<string>(62).fill("b"))).toBe(true);
    for (const wrong of ["", "x".repeat(257), 1]) expect(takes(wrong)).toBe(false);
    expect(takes(...Array<string>(65).fill("b"))).toBe(false);
  });

  test("have no other field, and a description of each in a sentence", () => {
    expect(healthSettingsSchema.safeParse({ check: [] }).success).toBe(false);
    expect(healthSettingsSchema.safeParse({ mirror: "yes" }).success).toBe(false);
    for (const [key, { description }] of Object.entries(healthSettingsSchema.shape)) {
      expect(description, key).toMatch(/^[A-Z].{15,}\.$/);
    }
  });

  test("may do without a settle time, but not without a time limit or an interval", () => {
    expect(healthSettingsSchema.parse({ settle: "0s" }).settle).toBe(0);
    expect(healthSettingsSchema.safeParse({ timeout: "0s" }).success).toBe(false);
    expect(healthSettingsSchema.safeParse({ interval: "0s" }).success).toBe(false);
  });

  test("hold so many checks and no more", () => {
    const checks = (count: number) => ({ checks: Array<unknown>(count).fill(TCP) });
    expect(healthSettingsSchema.parse(checks(MAX_CHECKS)).checks).toHaveLength(MAX_CHECKS);
    expect(healthSettingsSchema.safeParse(checks(MAX_CHECKS + 1)).success).toBe(false);
  });
});
