import { access } from "node:fs/promises";
import { expect, test } from "vitest";
import { ERROR_KINDS, type ErrorCode } from "../../agent/core/errors.ts";
import type { Manifest } from "../../agent/core/formats/manifest.ts";
import { answerOf } from "./answer.ts";
import { memoryOf, rootsOf, snapshotOf } from "./host-snapshot.ts";
import { serveMirror, type MirrorServer, type Misbehaviour } from "./mirror-server.ts";
import { sealManifest, type ReleaseSeries, type TestMirror } from "./release-series.ts";
import type { SandboxHost } from "./sandbox.ts";

/** What an attack may bend. */
export interface Target {
  readonly series: ReleaseSeries;
  readonly mirror: TestMirror;
  /** Null for a mirror in a directory. */
  readonly server: MirrorServer | null;
  readonly host: SandboxHost;
}

export type Deed = (target: Target) => unknown;

/** Something that a mirror, or whoever writes to it, does to a host. */
export interface Attack {
  readonly name: string;
  /** What the host must say; its exit code follows from ERROR_KINDS. */
  readonly code: ErrorCode;
  readonly attack: Deed;
  /** Why the test fails today, where it does. */
  readonly defect?: string;
  readonly settings?: (series: ReleaseSeries) => Record<string, unknown>;
  /** What happened on the host before, beside installing release 1. */
  readonly before?: Deed;
  /** What stays in staging: nothing, or what a later attempt goes on with. */
  readonly staging?: "kept";
  /**
   * The honest release afterwards. Where the hostile one was signed with the real key, the
   * host has accepted its sequence number and only follows a higher one.
   */
  readonly honest?: 2 | 3;
  /** Makes the honest release, where a published one will not do. */
  readonly repair?: Deed;
}

export const honestly: Misbehaviour = () => false;

/** No attack may write here. */
export const ELSEWHERE = `/tmp/nixos-pull-evil-${process.pid}`;

/** Release 2 as published, with changes, signed with the real key. */
export function signed(change: (manifest: Manifest) => unknown): Deed {
  return async ({ series, mirror }) => {
    const manifest = structuredClone(series.manifests[2]);
    change(manifest);
    await mirror.writeManifest(sealManifest(manifest, series.secretKey));
  };
}

/** Puts a misbehaviour into the HTTP server. */
export function serves(make: (target: Target) => Misbehaviour): Deed {
  return (target) => {
    if (target.server) target.server.misbehave = make(target);
  };
}

/** A mirror at release 2 over HTTP and a host at release 1 that follows it. */
export async function servedRelease(
  series: ReleaseSeries,
  settings: Record<string, unknown> = {},
): Promise<Target & { server: MirrorServer }> {
  const mirror = await series.mirror(2);
  const server = await serveMirror(mirror.directory);
  const host = await series.host({ mirrors: [server.url], ...settings });
  return { series, mirror, server, host };
}

/**
 * Defines a test for each attack: refused, host untouched, and then the honest release.
 * An attack that changed nothing that the host remembers, not a byte, leaves a host that
 * was never attacked; there the honest release is tried after every fifth only.
 */
export function defend(
  series: () => ReleaseSeries,
  transport: "http" | "file",
  attacks: readonly Attack[],
): void {
  for (const [at, attack] of attacks.entries()) {
    const define = attack.defect === undefined ? test : test.fails;
    define(`${attack.name}: ${attack.code}`, async () => {
      await withstand(series(), transport, attack, at % 5 === 0);
    });
  }
}

/**
 * Release 3 as somebody publishes it after a release 2 that should not have been: it names no
 * release before it. A host that accepted that release 2 would refuse one that names another.
 */
function withoutPast({ manifests, secretKey }: ReleaseSeries): string {
  const history = { since: { sequence: 3 }, releases: [] };
  return sealManifest({ ...manifests[3], history }, secretKey);
}

async function withstand(
  series: ReleaseSeries,
  transport: "http" | "file",
  attack: Attack,
  alwaysRecover: boolean,
): Promise<void> {
  const mirror = await series.mirror(2);
  const server = transport === "http" ? await serveMirror(mirror.directory) : null;
  const mirrors = [server?.url ?? mirror.address];
  const host = await series.host({ mirrors, ...attack.settings?.(series) });
  const target: Target = { series, mirror, server, host };
  await attack.before?.(target);
  const before = await snapshotOf(host);
  const memory = await memoryOf(host);

  await attack.attack(target);
  const attempt = await answerOf(host, "apply");
  expect(attempt.error, "the host took it").not.toBeNull();
  expect(attempt.error?.code, attempt.error?.message).toBe(attack.code);
  expect(attempt.exitCode).toBe(ERROR_KINDS[attack.code].exit);
  expect(attempt.updated).toBe(false);
  expect(await snapshotOf(host)).toEqual(before);
  expect(await host.stagingIsClean()).toBe(attack.staging !== "kept");
  await expect(access(ELSEWHERE)).rejects.toThrow("ENOENT");

  const isChanged = JSON.stringify(await memoryOf(host)) !== JSON.stringify(memory);
  if (!isChanged && !alwaysRecover) return;
  if (server) server.misbehave = honestly;
  const sequence = attack.honest ?? 2;
  if (attack.repair) await attack.repair(target);
  else await mirror.release(sequence);
  if (!attack.repair && sequence === 3) await mirror.writeManifest(withoutPast(series));
  const honest = await host.run("apply");
  expect(honest.exitCode, honest.stderr).toBe(0);
  expect(await host.profileToplevel()).toBe(series.toplevels[sequence]);
  expect(await host.stagingIsClean()).toBe(true);
  const current = series.toplevels[sequence];
  expect(await rootsOf(host)).toEqual({ current, previous: before.profile });
}
