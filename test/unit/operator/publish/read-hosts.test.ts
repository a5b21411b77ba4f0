import { describe, expect, test } from "vitest";
import {
  parseFlakeOption,
  parseHostsSource,
} from "../../../../agent/operator/publish/read-hosts.ts";

describe("where hosts are read", () => {
  test.each([
    [".", ".", null],
    ["/srv/fleet", "/srv/fleet", null],
    ["github:o/r?dir=x", "github:o/r?dir=x", null],
    [".#web1", ".", "web1"],
    ["#web1", ".", "web1"],
    [".#web1.example.org", ".", "web1.example.org"],
    [".#nixosConfigurations", ".", null],
    [".#nixosConfigurations.web1", ".", "web1"],
    [".#", ".", null],
  ])("--flake %s", (text, reference, name) => {
    const expected = { kind: "flake", reference, attribute: "nixosConfigurations", name };
    expect(parseFlakeOption(text)).toEqual(expected);
  });

  test.each([
    [".#fleet.hosts", ".", "fleet.hosts"],
    ["github:o/r#", "github:o/r", "nixosConfigurations"],
    ["#x", ".", "x"],
  ])("--hosts %s is a flake", (text, reference, attribute) => {
    expect(parseHostsSource(text)).toEqual({ kind: "flake", reference, attribute, name: null });
  });

  test.each(["hosts.nix", "hosts.json", "a#b.json", "./c#d/hosts.nix", "hosts"])(
    "--hosts %s is a file",
    (text) => {
      expect(parseHostsSource(text)).toEqual({ kind: "file", file: text });
    },
  );
});
