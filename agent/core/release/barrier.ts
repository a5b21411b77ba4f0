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

/** How a host gets to a release that has others before it. */
export type Passage =
  | { readonly kind: "open" }
  /** This release comes first; the manifest brings it along. */
  | { readonly kind: "through"; readonly stage: Stage }
  /** It cannot go on by itself. */
  | { readonly kind: "barred"; readonly message: string };

/**
 * Whether the host has to become an earlier release first. What it committed last counts,
 * in this channel: who went past a barrier and was rolled back by hand passes through it
 * again, and so does a host that lost its record, but not one that already is what the
 * release asks for. A new host, of whose past nothing is known, passes through where the
 * manifest has something for it.
 */
export function passageOf(manifest: Manifest, hostname: string, record: AgentRecord): Passage {
  const stages = entryOf(manifest, hostname)?.through ?? [];
  const { committed, pendingReboot } = record;
  const came = committed?.channel === manifest.channel ? committed : null;
  const position: Position | null = came && placeOf(came);
  // What only a boot brings into effect was not passed through before that boot.
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

function placeOf({
  epoch = 0,
  sequence,
}: {
  epoch?: number | undefined;
  sequence: number;
}): Position {
  return { epoch, sequence };
}

/** The earlier release as the agent follows it: by its own number and digest. */
export function stageRelease(stage: Stage, { channel, hostname }: Release): Release {
  const { epoch, sequence, digest, toplevel, closureSize, archive, activation } = stage;
  return {
    ...{ channel, hostname },
    ...(epoch !== undefined && { epoch }),
    ...{ sequence, digest, toplevel, closureSize, archive },
    mode: activation.mode,
    checks: activation.checks ?? [],
  };
}
