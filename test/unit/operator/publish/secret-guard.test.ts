import { describe, expect, test } from "vitest";
import {
  SecretGuard,
  parseAllowedSecret,
} from "../../../../agent/operator/publish/secret-guard.ts";
import { failureOf } from "../../../support/failure.ts";

const HASH = "0".repeat(32);
const kind = "PEM private key";

/** What a guard makes of one key at one place. */
function judge(name: string, file: string, ...allowed: string[]) {
  const warnings: string[] = [];
  const guard = new SecretGuard(allowed.map(parseAllowedSecret), (it) => warnings.push(it));
  return { permitted: guard.permits(`${HASH}-${name}`, [{ kind, file }]), warnings, guard };
}

describe("a private key", () => {
  test.each([
    ["source", "secrets/tls.pem"],
    ["etc", "etc/nginx/key.pem"],
    ["unit-nginx.service", "nginx.service"],
    ["nixos-system-web1-25.05", "etc-key"],
    ["tls-2024.pem", ""],
  ])("stops a publish in %s/%s, and the message names the file", (name, file) => {
    const { permitted, warnings, guard } = judge(name, file);
    expect(permitted).toBe(false);
    expect(warnings).toEqual([]);
    const error = failureOf(() => {
      guard.check();
    });
    expect(error.code).toBe("SECRET_IN_CLOSURE");
    expect(error.message).toContain(
      `/nix/store/${HASH}-${name}${file === "" ? "" : `/${file}`}: ${kind}`,
    );
  });

  test("is a warning in a package", () => {
    const { permitted, warnings, guard } = judge("python3-3.11.9", "lib/python3.11/test/key.pem");
    expect(permitted).toBe(true);
    expect(warnings).toEqual([expect.stringContaining("lib/python3.11/test/key.pem: PEM private")]);
    guard.check();
  });

  test.each([
    ["source"],
    ["source/tests"],
    ["source/tests/"],
    ["source/tests/key.pem"],
    [`/nix/store/${HASH}-source/tests`],
  ])("is let through where --allow-secrets %s names it", (allowed) => {
    const { permitted, warnings, guard } = judge("source", "tests/key.pem", allowed);
    expect({ permitted, warnings }).toEqual({ permitted: true, warnings: [] });
    guard.check();
  });

  test.each([["sourc"], ["source/test"], ["source/tests/key"], ["other/tests/key.pem"]])(
    "is not let through where --allow-secrets %s names something else",
    (allowed) => {
      expect(judge("source", "tests/key.pem", allowed).permitted).toBe(false);
    },
  );

  test("is listed twenty times at most, and all the others are counted and judged", () => {
    const guard = new SecretGuard([parseAllowedSecret("source/0")], () => undefined);
    const files = Array.from(
      { length: 50 },
      (_, number) => ({ kind, file: `${number}/key` }) as const,
    );
    expect(guard.permits(`${HASH}-source`, files)).toBe(false);
    const { message } = failureOf(() => {
      guard.check();
    });
    expect(message).toContain("and 29 more");
    expect(message).toContain("source/20/key");
    expect(message).not.toMatch(/source\/(0|21)\/key/);
  });

  test("with control characters in its name is shown without them", () => {
    const { guard } = judge("source", "a\u001b[2Jb");
    expect(
      failureOf(() => {
        guard.check();
      }).message,
    ).not.toContain("\u001b");
  });
});

test.each(["", "/", "/etc/passwd", "a b", "../x", "name//file"])(
  "--allow-secrets %j is refused",
  (text) => {
    expect(failureOf(() => parseAllowedSecret(text)).code).toBe("USAGE");
  },
);
