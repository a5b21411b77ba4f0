import { nixName, nixString } from "../../core/publish/nix-text.ts";
import { fillTemplate } from "./template-file.ts";

/** What `nixos-pull init` writes: a repository from which a fleet is published. */
export interface StartingRepository {
  readonly hosts: readonly string[];
  readonly mirrors: readonly string[];
  /** A flake with its lock file instead of `nixos.nix` with pins. */
  readonly flake: boolean;
  /** Where nixpkgs is, a flake's reference or an archive's address; a channel if absent. */
  readonly nixpkgs?: string | undefined;
  /** Where nixos-pull is, likewise; an example if absent. */
  readonly nixosPull?: string | undefined;
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
      ? [plain("flake.nix", "flake/flake.nix")]
      : [
          plain("nixos.nix", "pins/nixos.nix"),
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
    plain(".github/workflows/publish.yml", "ci/github.yml"),
    plain(".gitlab-ci.yml", "ci/gitlab.yml"),
  ];
}

/** Letters of an address: none of them ends a quote in a shell, in Nix or in JSON. */
const SOURCE_ADDRESS = /^[A-Za-z0-9:/._~%?=&+@,-]+$/;

/** Whether a text can be the address of a source in a repository. */
export function isSourceAddress(text: string): boolean {
  return SOURCE_ADDRESS.test(text);
}

/** The release of NixOS that a new repository begins with. */
const NIXPKGS_BRANCH = "nixos-26.05";

/** The values of the placeholders, each quoted for the language of its template. */
function placeholdersOf(repository: StartingRepository): Record<string, string> {
  const { hosts, mirrors, flake } = repository;
  const [hostname = ""] = hosts;
  const host = nixName(hostname);
  const common = {
    hostname,
    mirrors: mirrors.map(nixString).join(`\n${" ".repeat(8)}`),
    mirrorOptions: mirrors.map((mirror) => `--mirror ${shellQuoted(mirror)}`).join(" "),
  };
  const option = "nixos-pull option networking.firewall.allowedTCPPorts";
  if (flake) {
    const sources = {
      nixpkgs: repository.nixpkgs ?? `github:NixOS/nixpkgs/${NIXPKGS_BRANCH}`,
      nixosPull: repository.nixosPull ?? "git+https://git.example.org/nixos-pull",
    };
    // In CI, whatever Nix's settings are.
    const build = "nix --extra-experimental-features 'nix-command flakes' build";
    const configuration = `.#nixosConfigurations.${host}.config`;
    return {
      ...{ ...common, ...sources },
      ...{ nixFile: "flake.nix", hostsOption: "--flake .", optionCommand: `${option} --flake .` },
      firstStep: fillTemplate("flake/first-step.md", sources).trimEnd(),
      buildCommand: `nix build '${configuration}.system.build.toplevel'`,
      packageCommand: `${build} '${configuration}.services.nixos-pull.package'`,
      rcloneCommand: `${build} '.#nixosConfigurations.${host}.pkgs.rclone.out'`,
    };
  }
  const sources = {
    nixpkgs: repository.nixpkgs ?? `https://channels.nixos.org/${NIXPKGS_BRANCH}/nixexprs.tar.xz`,
    nixosPull: repository.nixosPull ?? "https://git.example.org/nixos-pull/archive/main.tar.gz",
  };
  return {
    ...{ ...common, ...sources },
    ...{ nixFile: "nixos.nix", hostsOption: "--hosts nixos.nix", optionCommand: option },
    firstStep: fillTemplate("pins/first-step.md", sources).trimEnd(),
    buildCommand: `nix-build nixos.nix -A '${host}.system'`,
    packageCommand: `nix-build nixos.nix -A '${host}.config.services.nixos-pull.package'`,
    rcloneCommand: `nix-build nixos.nix -A '${host}.pkgs.rclone.out'`,
  };
}

/** A text as one word of a shell. */
function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
