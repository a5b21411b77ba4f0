// A manifest of a large fleet, as nixos-pull writes one.
import { createHash } from "node:crypto";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

/** The name of a host of the fleet. */
export function hostname(at) {
  return `host${at}`;
}

/** A release of many hosts, as `nixos-pull publish` would write it; only the sizes matter. */
export function fleetManifest(count) {
  const digest = (text) => createHash("sha256").update(text).digest("hex");
  const now = Date.now();
  const hosts = Array.from({ length: count }, (_, at) => {
    // Hex digits without the e are Nix's too.
    const hash = digest(`toplevel ${at}`).replaceAll("e", "z").slice(0, 32);
    return [
      hostname(at),
      {
        toplevel: `/nix/store/${hash}-nixos-system-${hostname(at)}-24.05.20240531.63dacb4`,
        closureSize: 1_736_123_888 + at,
        archive: {
          sha256: digest(`archive ${at}`),
          size: 616_249_344 + at,
          index: { sha256: digest(`index ${at}`), size: 60_000 + at },
        },
      },
    ];
  });
  return {
    formatVersion: 1,
    channel: "stable",
    sequence: 1,
    createdAt: new Date(now).toISOString(),
    expiresAt: new Date(now + 24 * 3600 * 1000).toISOString(),
    history: { since: { sequence: 1 }, releases: [] },
    defaults: { activation: { mode: "switch" } },
    hosts: Object.fromEntries(hosts),
  };
}

/** The agent's own formats: the benchmark forges no manifest by itself. */
export async function importCore(directory) {
  const outfile = join(directory, "core.mjs");
  await build({
    stdin: {
      contents: `
        export { sealEnvelope } from "./core/formats/envelope.ts";
        export { encodeManifest } from "./core/formats/manifest.ts";
        export { parseSecretKey } from "./core/formats/signing-key.ts";`,
      resolveDir: fileURLToPath(new URL("../../../agent", import.meta.url)),
    },
    bundle: true,
    platform: "node",
    format: "esm",
    outfile,
    logLevel: "warning",
  });
  return import(pathToFileURL(outfile).href);
}
