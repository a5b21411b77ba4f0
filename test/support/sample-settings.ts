import { parseSettings, type Settings } from "../../agent/core/settings.ts";
import { testKey } from "./test-key.ts";

/** The default settings of a host. */
export function sampleSettings(): Settings {
  return parseSettings(
    { mirrors: ["https://mirror.example.org"], publicKeys: [testKey("fleet-1").publicKey.text] },
    "web1",
  );
}

/** The default limits with some of them replaced; times are in milliseconds. */
export function sampleLimits(changes: Partial<Settings["limits"]> = {}): Settings["limits"] {
  return { ...sampleSettings().limits, ...changes };
}
