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
  /** The hosts as Nix text; null if a program beside Nix's own must not evaluate them. */
  readonly expression: (context: BuildContext) => Promise<HostsExpression | null>;
}

/** Hosts as Nix text. */
export interface HostsExpression {
  readonly text: string;
  /** Whether it is evaluated as flakes are. */
  readonly pure: boolean;
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
 * What both functions below begin with: `toHost`, which gives what hosts files say of a host and its
 * system, or null if it is left out. A host is a system (a derivation), a NixOS configuration, or a
 * set with either as `system` and further keys. A configuration says them below
 * `services.nixos-pull.release`; a hosts file has the last word.
 */
const TO_HOST = `
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
  toHost =
    host:
    let
      isWhole = isSystem host || isConfiguration host;
      it = if isWhole then host else host.system;
      # Pass unknown attributes on: the parser refuses them by name.
      says = saysOf it // (if isWhole then { } else host);
      isLeftOut = (!isWhole && !(host.publish or true)) || !(says.publish or true);
    in
    if isLeftOut then null else { inherit says; system = systemOf it; };
  each =
    function:
    builtins.listToAttrs (
      map (name: {
        inherit name;
        value =
          let
            host = toHost (builtins.getAttr name hosts);
          in
          if host == null then null else function host;
      }) names
    );
in
`;

/** A function in Nix, from a set of hosts and names to what hosts files say of these. */
export const TO_SPECS = `${TO_HOST}
each (host: host.says // { system = host.system.drvPath; })
`;

/** The same for nix-eval-jobs: to the hosts' systems, each with what is said of it as `says`. */
export const TO_JOBS = `${TO_HOST}
each (host: host.system // { inherit (host) says; })
`;
