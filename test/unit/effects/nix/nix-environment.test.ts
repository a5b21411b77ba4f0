import { expect, onTestFinished, test, vi } from "vitest";
import { childEnvironment, storeRoot } from "../../../../agent/effects/nix/nix-environment.ts";

test("children see what Nix needs and nothing that could change what it does", () => {
  onTestFinished(() => void vi.unstubAllEnvs());
  vi.stubEnv("PATH", "/run/current-system/sw/bin");
  vi.stubEnv("NIX_REMOTE", "daemon");
  for (const name of ["LD_PRELOAD", "NIX_CONFIG", "NIX_PATH", "NIX_SSL_CERT_FILE", "BASH_ENV"]) {
    vi.stubEnv(name, "evil");
  }
  const env = childEnvironment();
  expect(env).toMatchObject({
    ...{ PATH: "/run/current-system/sw/bin", NIX_REMOTE: "daemon", LANG: "C.UTF-8" },
  });
  expect(Object.values(env)).not.toContain("evil");
});

test("variables that are not set are left out, and more can be given", () => {
  onTestFinished(() => void vi.unstubAllEnvs());
  vi.stubEnv("NIX_CONF_DIR", undefined);
  const env = childEnvironment({ NIXOS_PULL_SANDBOX_ROOT: "/srv/sandbox" });
  expect(env).not.toHaveProperty("NIX_CONF_DIR");
  expect(env["NIXOS_PULL_SANDBOX_ROOT"]).toBe("/srv/sandbox");
});

test.each<[string | undefined, string | null]>([
  [undefined, null],
  ["daemon", null],
  ["auto", null],
  ["local", null],
  ["local?root=/srv/sandbox", "/srv/sandbox"],
  ["local?read-only=true&root=/srv/sandbox", "/srv/sandbox"],
  ["local?state=/x", null],
  ["/srv/sandbox", "/srv/sandbox"],
  ["ssh://host?root=/x", null],
])("the store %s has the root %s", (uri, root) => {
  expect(storeRoot(uri)).toBe(root);
});
