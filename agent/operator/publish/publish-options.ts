import type { ActivationMode } from "../../core/formats/manifest.ts";
import type { Compression } from "../../core/formats/narinfo.ts";
import type { SecretKey } from "../../core/formats/signing-key.ts";
import type { BarrierRequest } from "../channel/barriers.ts";
import type { NextReleaseOptions } from "../channel/open-channel.ts";
import type { PositionRequest } from "../channel/position.ts";
import type { RolloutRequest } from "../channel/rollout-request.ts";
import type { HostFailure, HostsInFile } from "./host-failure.ts";
import type { HostSpec } from "./host-spec.ts";
import type { AllowedSecret } from "./secret-guard.ts";

/** What an operator asks of a publish. */
export interface PublishRequest extends Omit<PublishOptions, "failed"> {
  /**
   * Reads further hosts, such as those of a hosts file, which may take minutes. It is called once
   * all that can be known without them is checked. `onNames` hears their names before any of them
   * is evaluated; what it throws ends the reading.
   */
  readonly readHosts?:
    ((onNames: (names: readonly string[]) => void) => Promise<HostsInFile>) | undefined;
  /** Groups that hosts get beside those that they have, by hostname. */
  readonly groups: ReadonlyMap<string, readonly string[]>;
  /** Specialisations that hosts are to run, by hostname. */
  readonly specialisations: ReadonlyMap<string, string>;
}

/** What is published, how, and where to. */
export interface PublishOptions extends NextReleaseOptions, PositionRequest {
  readonly hosts: readonly HostSpec[];
  /** Each signs every store path. */
  readonly storeKeys: readonly SecretKey[];
  /** Publish the current release again with a new expiry; then no hosts are given. */
  readonly refresh: boolean;
  /** How hosts activate the release, unless their entry says otherwise. */
  readonly mode: ActivationMode;
  readonly compression: Compression;
  /** Of the compression program; its own default if absent. */
  readonly level?: number | undefined;
  /** Earlier releases against which deltas are made. */
  readonly deltas: number;
  /** One self-contained archive for each system, whatever other archives have. */
  readonly whole: boolean;
  /** Hosts that could not be evaluated, which keep their entry of the current release. */
  readonly failed: readonly HostFailure[];
  /** Publish the others if a host cannot be evaluated or built. */
  readonly keepGoing: boolean;
  /** Hosts that are not named keep their entry of the current release. */
  readonly keepHosts: boolean;
  /** When each host's turn comes. A refresh keeps the current rollout. */
  readonly rollout: RolloutRequest;
  readonly barrier: BarrierRequest;
  /** Files that may be published although they hold private keys. */
  readonly allowSecrets: readonly AllowedSecret[];
  /** Hosts whose systems may have no agent. */
  readonly allowWithoutAgent: readonly string[];
  /** Hosts whose systems may be for another platform than before. */
  readonly allowPlatform: readonly string[];
  /** Binary cache that is kept between publishes; a temporary one if absent. */
  readonly cache?: string | undefined;
  readonly onProgress: (progress: PublishProgress) => void;
}

/** What a publish is doing, for a person. */
export type PublishProgress =
  | {
      readonly phase: "build";
      readonly hostnames: readonly string[];
      /** Hosts whose systems are built already. */
      readonly at: number;
      readonly of: number;
    }
  | {
      readonly phase: "evaluate";
      /** Hosts that a process begins to evaluate; none in the end. */
      readonly hostnames: readonly string[];
      readonly done: number;
      readonly of: number;
    }
  | { readonly phase: "nix"; readonly line: string }
  | {
      readonly phase: "compress";
      /** Paths. */
      readonly done: number;
      readonly of: number;
      /** The same in bytes of NARs. */
      readonly bytes: number;
      readonly ofBytes: number;
    }
  | { readonly phase: "delta"; readonly done: number; readonly of: number }
  | {
      readonly phase: "pack";
      readonly hostname: string;
      /** Of all archives together. */
      readonly bytes: number;
      readonly ofBytes: number;
    }
  | { readonly phase: "warning"; readonly message: string };
