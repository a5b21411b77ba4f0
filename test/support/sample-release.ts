import { createHash } from "node:crypto";
import type { HostEntry, Manifest, Release } from "../../agent/core/formats/manifest.ts";
import { STORE_DIRECTORY, encodeBase32 } from "../../agent/core/formats/store-path.ts";

/** A store path that looks real; the same name gives the same path. */
export function samplePath(name: string): string {
  const hash = createHash("sha256").update(name).digest().subarray(0, 20);
  return `${STORE_DIRECTORY}/${encodeBase32(hash)}-${name}`;
}

/** A sha256 in hex; the same text gives the same one. */
export function sampleDigest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

export function sampleHost(changes: Partial<HostEntry> = {}): HostEntry {
  return {
    toplevel: samplePath("nixos-system-web1-1"),
    closureSize: 1_000,
    archive: {
      sha256: sampleDigest("archive"),
      size: 20_480,
      index: { sha256: sampleDigest("index"), size: 300 },
    },
    ...changes,
  };
}

/** The history of a release that names none before it: hosts then go by the numbers alone. */
export function saysNothing({
  epoch,
  sequence = 7,
}: Partial<Pick<Manifest, "epoch" | "sequence">>): Manifest["history"] {
  return { since: { ...(epoch && { epoch: epoch.number }), sequence }, releases: [] };
}

export function sampleManifest(changes: Partial<Manifest> = {}): Manifest {
  return {
    formatVersion: 1,
    channel: "stable",
    sequence: 7,
    createdAt: "2026-01-31T12:00:00.000Z",
    expiresAt: "2026-02-28T12:00:00.000Z",
    history: saysNothing(changes),
    defaults: { activation: { mode: "switch" } },
    hosts: { web1: sampleHost() },
    ...changes,
  };
}

export function sampleRelease(changes: Partial<Release> = {}): Release {
  const { toplevel, closureSize, archive } = sampleHost();
  return {
    channel: "stable",
    sequence: 7,
    digest: sampleDigest("release 7"),
    hostname: "web1",
    toplevel,
    closureSize,
    archive,
    mode: "switch",
    checks: [],
    ...changes,
  };
}
