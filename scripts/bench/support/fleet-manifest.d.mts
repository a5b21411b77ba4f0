/** A manifest of a large fleet, as an object. */
export function fleetManifest(count: number): unknown;
/** The agent's own formats. */
export function importCore(directory: string): Promise<{
  encodeManifest: (manifest: unknown) => Uint8Array;
}>;
