import { describe, expect, test } from "vitest";
import {
  parseHostOption,
  parseHostsFile,
  parseSource,
  type SystemSource,
} from "../../../../agent/operator/publish/host-spec.ts";
import { failureOf } from "../../../support/failure.ts";
import { samplePath } from "../../../support/sample-release.ts";

const TOPLEVEL = samplePath("nixos-system-web1-1");
const DERIVATION = samplePath("nixos-system-web1-1.drv");

function flake(installable: string): SystemSource {
  return { kind: "flake", installable };
}

function file(path: string, attribute: string | null = null): SystemSource {
  return { kind: "file", file: path, attribute };
}

describe("a source", () => {
  test.each<[string, SystemSource]>([
    [TOPLEVEL, { kind: "storePath", path: TOPLEVEL }],
    [`${TOPLEVEL}/`, { kind: "storePath", path: TOPLEVEL }],
    [DERIVATION, { kind: "derivation", path: DERIVATION }],
    ["system.nix", file("system.nix")],
    ["./hosts/web1.nix", file("./hosts/web1.nix")],
    ["/etc/nixos/configuration.nix", file("/etc/nixos/configuration.nix")],
    ["a b/system.nix", file("a b/system.nix")],
    ["system.nix#web1", file("system.nix", "web1")],
    ["system.nix#a.b.c", file("system.nix", "a.b.c")],
    ["system.nix -A web1", file("system.nix", "web1")],
    ["system.nix   -A   a.b", file("system.nix", "a.b")],
    ["flake.nix#web1", file("flake.nix", "web1")],
    [".#web1", flake(".#nixosConfigurations.web1.config.system.build.toplevel")],
    ["#web1", flake("#nixosConfigurations.web1.config.system.build.toplevel")],
    ["github:o/r#web1", flake("github:o/r#nixosConfigurations.web1.config.system.build.toplevel")],
    [".#packages.x86_64-linux.system", flake(".#packages.x86_64-linux.system")],
    ["git+https://x/y?ref=main#a.b", flake("git+https://x/y?ref=main#a.b")],
    ["/srv/flake#a.b#c", flake("/srv/flake#a.b#c")],
  ])("%s is read", (text, source) => {
    expect(parseSource(text)).toEqual(source);
  });

  test.each([
    "",
    "web1",
    ".",
    "./directory",
    "github:o/r",
    "flake#",
    "#",
    "system.nix#",
    "system.nix -A",
    "/nix/store/",
    "/nix/store/short-name",
    `${TOPLEVEL}/bin/switch-to-configuration`,
    `${TOPLEVEL}#attribute`,
    "/nix/store/../../etc/passwd",
  ])("%j is refused, with what was expected", (text) => {
    const failure = failureOf(() => parseSource(text));
    expect(failure.code).toBe("USAGE");
    expect(failure.message).toMatch(/^expected /);
    expect(failure.message).toContain(`found ${JSON.stringify(text)}`);
  });
});

describe("--host", () => {
  test.each([
    ["web1=system.nix", "web1", file("system.nix")],
    ["web1.example.org=.#a.b", "web1.example.org", flake(".#a.b")],
    ["web1=git+https://x/y?ref=main#a.b", "web1", flake("git+https://x/y?ref=main#a.b")],
    [`WEB-1=${TOPLEVEL}`, "WEB-1", { kind: "storePath", path: TOPLEVEL }],
  ])("%s names a host and its source", (text, hostname, source) => {
    expect(parseHostOption(text)).toEqual({ hostname, source });
  });

  test.each(["", "web1", "=system.nix", "a b=system.nix", "../x=system.nix", "-=x.nix"])(
    "%j is refused for its hostname",
    (text) => {
      const failure = failureOf(() => parseHostOption(text));
      expect(failure.code).toBe("USAGE");
      expect(failure.message).toBe(`--host: expected NAME=SOURCE, found ${JSON.stringify(text)}`);
    },
  );

  test.each(["web1=", "web1==system", "web1=nothing"])("%j is refused for its source", (text) => {
    const failure = failureOf(() => parseHostOption(text));
    expect(failure.code).toBe("USAGE");
    expect(failure.message).toContain("FLAKE#ATTRIBUTE");
  });
});

describe("a hosts file", () => {
  test("names sources, and modes where a host has its own", () => {
    const hosts = parseHostsFile(
      {
        web1: "system.nix#web1",
        web2: { system: ".#web2", activation: { mode: "boot" } },
        web3: { system: TOPLEVEL },
        web4: { system: DERIVATION, activation: {} },
      },
      "hosts.json",
    );
    expect(hosts).toEqual([
      { hostname: "web1", source: file("system.nix", "web1") },
      {
        hostname: "web2",
        source: flake(".#nixosConfigurations.web2.config.system.build.toplevel"),
        activation: { mode: "boot" },
      },
      { hostname: "web3", source: { kind: "storePath", path: TOPLEVEL } },
      { hostname: "web4", source: { kind: "derivation", path: DERIVATION }, activation: {} },
    ]);
  });

  test("may be empty; that nothing is published is for others to refuse", () => {
    expect(parseHostsFile({}, "hosts.json")).toEqual([]);
  });

  test.each<[string, unknown, string]>([
    ["a list", ["web1"], "top level"],
    ["null", null, "top level"],
    ["a number for a source", { web1: 7 }, "web1: expected a source as text"],
    ["a host without a system", { web1: {} }, "web1: expected a source as text"],
    ["an unknown key", { web1: { system: "x.nix", tags: [] } }, 'web1: unknown key "tags"'],
    [
      "an unknown mode",
      { web1: { system: "x.nix", activation: { mode: "kexec" } } },
      "web1: expected a source as text",
    ],
    ["an impossible hostname", { "a b": "x.nix" }, "a b: "],
  ])("with %s is refused, naming the file", (_, json, words) => {
    const failure = failureOf(() => parseHostsFile(json, "hosts.json"));
    expect(failure.code).toBe("CONFIG_INVALID");
    expect(failure.message).toContain("hosts.json: ");
    expect(failure.message).toContain(words);
  });

  test("with a source that is none is refused", () => {
    expect(failureOf(() => parseHostsFile({ web1: "nothing" }, "hosts.json")).code).toBe("USAGE");
  });

  test("with a source that is none is refused, naming file and host", () => {
    const { message } = failureOf(() => parseHostsFile({ web1: "nothing" }, "hosts.json"));
    expect(message).toContain("hosts.json");
    expect(message).toContain("web1");
  });
});
