import type { BuildContext } from "./nix-builder.ts";

/** Hosts that stand together in a flake or a file, and which Nix evaluates. */
export interface HostSet {
  /** What the operator calls it, for messages. */
  readonly label: string;
  /** The hosts' names, without evaluating a host. Throws BUILD_FAILED, CONFIG_INVALID. */
  readonly names: (context: BuildContext) => Promise<string[]>;
  /**
   * Evaluates some of the hosts, by one process. Throws BUILD_FAILED if one of them fails; which one
   * is for the caller to find.
   */
  readonly evaluate: (names: readonly string[], context: BuildContext) => Promise<EvaluatedHosts>;
}

/** What a process of Nix evaluated. */
export interface EvaluatedHosts {
  /** Each host as hosts files have it, its system as the path of a derivation; null if left out. */
  readonly hosts: Readonly<Record<string, unknown>>;
  /** Nix's heap in the end, bytes; 0 if it is not known. */
  readonly heap: number;
}

/** The heap in Nix's statistics (`NIX_SHOW_STATS`), bytes; 0 if there are none. */
export function heapIn(stderr: string): number {
  return Number(/"heapSize": (\d+)/.exec(stderr)?.[1] ?? 0);
}

/** The same context, for a process that prints statistics, which are nothing for a person. */
export function withStatistics(context: BuildContext): BuildContext {
  return {
    ...context,
    environment: { ...context.environment, NIX_SHOW_STATS: "1" },
    onLine: (line) => {
      // The JSON's last line may have Nix's next message behind it.
      const said = line.replace(/^}/, "");
      if (!/^(?:[{]|\s+["}]|$)/.test(said)) context.onLine(said);
    },
  };
}

/**
 * A function in Nix, from a set of hosts to what hosts files say of them. A host is a system (a
 * derivation), a NixOS configuration, or a set with either as `system` and further keys. A
 * configuration says them below `services.nixos-pull.release`; a hosts file has the last word.
 */
export const TO_SPECS = `
hosts: names:
let
  isSystem = it: it.type or null == "derivation";
  isConfiguration = it: !(isSystem it) && it ? config.system;
  withoutNull =
    it:
    if builtins.isList it then
      map withoutNull it
    else if builtins.isAttrs it then
      builtins.mapAttrs (_: withoutNull) (
        removeAttrs it (builtins.filter (name: it.\${name} == null) (builtins.attrNames it))
      )
    else
      it;
  saysOf =
    it: if isConfiguration it then withoutNull (it.config.services.nixos-pull.release or { }) else { };
  systemOf = it: if isConfiguration it then it.config.system.build.toplevel else it;
  toSpec =
    host:
    let
      isWhole = isSystem host || isConfiguration host;
      it = if isWhole then host else host.system;
      # Pass unknown attributes on: the parser refuses them by name.
      says = saysOf it // (if isWhole then { } else host);
      isLeftOut = (!isWhole && !(host.publish or true)) || !(says.publish or true);
    in
    if isLeftOut then null else says // { system = (systemOf it).drvPath; };
in
builtins.listToAttrs (
  map (name: {
    inherit name;
    value = toSpec (builtins.getAttr name hosts);
  }) names
)
`;
