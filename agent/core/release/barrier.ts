import { placeOf } from "./release-history.ts";
import type { AgentRecord } from "../update/record.ts";
import {
  comparePositions,
  describePosition,
  entryOf,
  type Manifest,
  type Position,
  type Release,
  type Stage,
} from "../formats/manifest.ts";

/** How a host gets to a release behind barriers. */
export type Passage =
  | { readonly kind: "open" }
  /** This earlier release comes first; the manifest contains it. */
  | { readonly kind: "through"; readonly stage: Stage }
  /** The host cannot go on by itself. */
  | { readonly kind: "barred"; readonly message: string };

/**
 * Whether the host has to switch to an earlier release first. What it committed last in this
 * channel counts. So a host that passed a barrier and was rolled back by hand passes it again;
 * so does a host that lost its record, unless it already is what the release asks for. A new
 * host, whose past is not known, passes a barrier if the manifest has a system for it there.
 */
export function passageOf(manifest: Manifest, hostname: string, record: AgentRecord): Passage {
  const stages = entryOf(manifest, hostname)?.through ?? [];
  const { committed, pendingReboot } = record;
  const came = committed?.channel === manifest.channel ? committed : null;
  const position: Position | null = came && placeOf(came);
  // A barrier that takes effect only with a boot is not passed before that boot.
  const booting = stages.find(
    ({ toplevel }) => !pendingReboot?.wayBack && toplevel === pendingReboot?.release.toplevel,
  );
  if (booting && position && comparePositions(position, placeOf(booting)) >= 0) {
    return {
      kind: "barred",
      message: `release ${describePosition(placeOf(booting))} comes first, and takes effect with a reboot`,
    };
  }
  const stage = stages.find((it) => !position || comparePositions(placeOf(it), position) > 0);
  if (stage) return { kind: "through", stage };
  const { barrier } = manifest;
  if (!barrier || !position || comparePositions(position, placeOf(barrier)) >= 0) {
    return { kind: "open" };
  }
  return {
    kind: "barred",
    message:
      `this host became release ${describePosition(position)} last; it has to become release ` +
      `${describePosition(placeOf(barrier))} first, which has nothing for it`,
  };
}

/** The earlier release as the agent follows it, under its own number and digest. */
export function stageRelease(stage: Stage, { channel, hostname }: Release): Release {
  const { epoch, sequence, digest, toplevel, closureSize, archive, activation } = stage;
  return {
    ...{ channel, hostname },
    ...(epoch !== undefined && { epoch }),
    ...{ sequence, digest, toplevel, closureSize, archive },
    mode: activation.mode,
    ...(activation.specialisation !== undefined && { specialisation: activation.specialisation }),
    checks: activation.checks ?? [],
  };
}
