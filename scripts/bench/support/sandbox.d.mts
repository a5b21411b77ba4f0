import type { MeasuredRun, MeasuredRunOptions } from "./process-usage.mjs";

export interface PublishedHost {
  readonly toplevel: string;
  readonly closureSize: number;
  readonly paths: number;
  readonly archive: {
    readonly sha256: string;
    readonly size: number;
    readonly index: { readonly sha256: string; readonly size: number };
  };
}

export interface Operator {
  readonly publicKey: string;
  readonly secretKey: string;
  publish(
    mirror: string,
    systems: Readonly<Record<string, string>>,
    ...args: string[]
  ): Promise<MeasuredRun & { readonly release: { hosts: Record<string, PublishedHost> } }>;
}

/** What an update took, and its parts in seconds. */
export interface AppliedRun extends MeasuredRun {
  readonly toplevel: string;
  /** Reading and importing the closure. */
  readonly closureSeconds: number;
  readonly otherSeconds: number;
  readonly paths: number;
  readonly newPaths: number;
}

export interface Host {
  readonly root: string;
  readonly configFile: string;
  readonly env: Record<string, string>;
  /** `nixos-pull apply`; throws where it changes nothing. */
  apply(options?: MeasuredRunOptions): Promise<AppliedRun>;
  /** `nixos-pull apply`, however it ends. */
  tryToApply(options?: MeasuredRunOptions): Promise<MeasuredRun>;
}

/** Environment of all measured programs; Nix's caches are `home`'s. */
export function environment(home: string): Record<string, string>;

/** An operator with a key of its own in `directory`. */
export function createOperator(place: { directory: string; bundle: string }): Promise<Operator>;

/** A host with its store, profile and state below `root`, a new directory. */
export function createHost(
  root: string,
  bundle: string,
  settings: { mirror: string; publicKey: string; hostname?: string },
): Host;
