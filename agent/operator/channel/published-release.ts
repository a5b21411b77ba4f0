import type { ActivationMode, HostEntry } from "../../core/formats/manifest.ts";

import type { SeenDifference } from "./seen-difference.ts";

/** What was packed for one host. */
export interface PublishedHost {
  readonly toplevel: string;
  /** Sum of the closure's NAR sizes, bytes. */
  readonly closureSize: number;
  /** Store paths in the closure. */
  readonly paths: number;
  readonly archive: HostEntry["archive"];
  readonly mode: ActivationMode;
  /** The specialisation of the system that the host is to run; null for the system itself. */
  readonly specialisation: string | null;
  /** What its programs run on; null if the system does not tell. */
  readonly platform: string | null;
  /** True if the mirror had the archive already. */
  readonly reused: boolean;
}

/** A release that was signed and placed, for the person who asked for it. */
export interface PublishedRelease {
  readonly channel: string;
  readonly epoch: number;
  readonly sequence: number;
  readonly createdAt: string;
  readonly expiresAt: string;
  /** sha256 of the payload. */
  readonly digest: string;
  /** The file that was written: the manifest in force, or the draft. */
  readonly manifest: string;
  /** True if the release is not in force yet. */
  readonly draft: boolean;
  /** True if nothing was to change: nothing was signed, and this release was in force before. */
  readonly unchanged: boolean;
  /** What it changes; null if nothing was signed. */
  readonly difference: SeenDifference | null;
  /** Names of the keys that signed. */
  readonly signedBy: readonly string[];
  /** By hostname. Empty if the systems are those of an earlier release. */
  readonly hosts: Readonly<Record<string, PublishedHost>>;
  /** Hosts of the release before that this one no longer names. */
  readonly dropped: readonly string[];
}
