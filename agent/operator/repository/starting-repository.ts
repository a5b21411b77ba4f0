import { nixName, nixString } from "../../core/publish/nix-text.ts";
import { fillTemplate } from "./template-file.ts";

/** What `nixos-pull init` writes: a repository from which a fleet is published. */
export interface StartingRepository {
  readonly hosts: readonly string[];
  readonly mirrors: readonly string[];
  /** A flake with its lock file instead of `nixos.nix` with pins. */
  readonly flake: boolean;
}

/** A file of the repository, by its path in it. */
export interface StartingFile {
  readonly path: string;
  readonly text: string;
  readonly executable: boolean;
}

/** The files of a repository, in the order in which a person would read them. */
export function startingFiles(repository: StartingRepository): StartingFile[] {
  const { hosts, flake } = repository;
  const values = placeholdersOf(repository);
  const plain = (path: string, template: string): StartingFile => ({
    ...{ path, executable: false },
    text: fillTemplate(template, values),
  });
  const script = (path: string, template: string): StartingFile => ({
    ...plain(path, template),
    executable: true,
  });
  return [
    plain("README.md", "README.md"),
    ...(flake
      ? [
          plain("flake.nix", "flake/flake.nix"),
          { path: "hosts.json", text: hostsJson(hosts), executable: false },
        ]
      : [
          plain("nixos.nix", "pins/nixos.nix"),
          plain("hosts.nix", "pins/hosts.nix"),
          plain("pins/nixpkgs.json", "pins/unpinned.json"),
          plain("pins/nixos-pull.json", "pins/unpinned.json"),
          script("pin", "pins/pin.sh"),
        ]),
    plain("common.nix", "common.nix"),
    ...hosts.flatMap((hostname) => [
      {
        path: `hosts/${hostname}.nix`,
        text: fillTemplate("host.nix", { hostname }),
        executable: false,
      },
      plain(`hardware/${hostname}.nix`, "hardware.nix"),
    ]),
    plain(".gitignore", "gitignore"),
    plain("keys/.gitignore", "keys-gitignore"),
    script("publish", "publish.sh"),
    script("upload", "upload.sh"),
    plain(".github/workflows/publish.yml", "publish.yml"),
  ];
}

/** The values of the placeholders, each quoted for the language of its template. */
function placeholdersOf({ hosts, mirrors, flake }: StartingRepository): Record<string, string> {
  const [hostname = ""] = hosts;
  const host = nixName(hostname);
  return {
    hostname,
    mirrors: mirrors.map(nixString).join(`\n${" ".repeat(8)}`),
    ...(flake
      ? {
          nixFile: "flake.nix",
          hostsFile: "hosts.json",
          firstStep: fillTemplate("flake/first-step.md", {}).trimEnd(),
          buildCommand: `nix build '.#nixosConfigurations.${host}.config.system.build.toplevel'`,
          packageCommand: `nix build --no-link --print-out-paths '.#nixosConfigurations.${host}.config.services.nixos-pull.package'`,
        }
      : {
          nixFile: "nixos.nix",
          hostsFile: "hosts.nix",
          firstStep: fillTemplate("pins/first-step.md", {}).trimEnd(),
          buildCommand: `nix-build nixos.nix -A '${host}.system'`,
          packageCommand: `nix-build --no-out-link nixos.nix -A '${host}.config.services.nixos-pull.package'`,
        }),
  };
}

/** Where the system of each host comes from, for `publish --hosts`. */
function hostsJson(hosts: readonly string[]): string {
  const sources = Object.fromEntries(hosts.map((hostname) => [hostname, `.#${hostname}`]));
  return `${JSON.stringify(sources, null, 2)}\n`;
}
