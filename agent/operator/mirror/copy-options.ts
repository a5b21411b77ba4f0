import type { TrustPolicy } from "../../core/formats/envelope.ts";
import type { SignedManifest } from "../../core/formats/manifest.ts";
import type { Report } from "../../core/formats/report.ts";
import type { PublicKey } from "../../core/formats/signing-key.ts";
import type { Clock, Disk, Mirror } from "../../core/ports.ts";
import type { Pruned } from "./prune-mirror.ts";

/** What is copied, from where to where. */
export interface CopyOptions {
  readonly source: Mirror;
  /** The source's directory, or null if it is a server. */
  readonly sourceDirectory: string | null;
  /** A directory. */
  readonly destination: string;
  /** Null for those of a directory; for `stable` of a server, which cannot list its channels. */
  readonly channels: readonly string[] | null;
  /** Only these hosts; null for all that the source was filled for. */
  readonly hosts: readonly string[] | null;
  /** What hosts have. Each reporting host is copied for. */
  readonly reports: readonly Report[];
  /** Copy deltas instead of the paths that a reporting host can make with them. */
  readonly deltas: boolean;
  readonly trust: TrustPolicy;
  /** Whose signatures of store paths count. */
  readonly storeKeys: readonly PublicKey[];
  /** Let a release replace a newer one. */
  readonly allowOlder: boolean;
  /** Releases of each channel that are retained in the destination; null prunes nothing. */
  readonly keep: number | null;
  /** Only say what would be copied. */
  readonly dryRun: boolean;
  readonly clock: Clock;
  readonly disk: Disk;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress: (progress: CopyProgress) => void;
  /** Hears of files in the destination that nobody of us made, and that are left. */
  readonly onWarning: (message: string) => void;
}

/** What a copy is doing. */
export type CopyProgress =
  | { readonly phase: "index"; readonly hostname: string }
  /** Patches are left out; hosts read whole indexes then. */
  | { readonly phase: "patches"; readonly message: string }
  | {
      readonly phase: "copy";
      readonly archives: number;
      readonly bytes: number;
      readonly ofBytes: number;
    };

/** What was done about one channel. */
export interface CopiedChannel {
  readonly channel: string;
  readonly signed: SignedManifest;
  readonly expired: boolean;
  /** False if the destination had this very manifest. */
  readonly isNews: boolean;
  readonly hosts: readonly CopiedHost[];
}

/** What was copied for one host. */
export interface CopiedHost {
  readonly hostname: string;
  /** NARs and deltas that the destination has for it; null for its whole closure. */
  readonly members: number | null;
  /** Why it got everything although it reported. */
  readonly note?: string;
}

/** What a copy came to. */
export interface CopiedMirror {
  readonly channels: readonly CopiedChannel[];
  /** Hosts that reported, but that the releases do not name. */
  readonly strangers: readonly string[];
  readonly archives: {
    readonly copied: number;
    readonly present: number;
    /** Of those that were copied. */
    readonly bytes: number;
    /** Archives of index patches that were copied beside them. */
    readonly patches: number;
  };
  readonly pruned: Pruned | null;
}
