import { parseSettings, type Settings } from "../../agent/core/settings.ts";
import { testKey } from "./test-key.ts";

/** The default limits with some of them replaced; times are in milliseconds. */
export function sampleLimits(changes: Partial<Settings["limits"]> = {}): Settings["limits"] {
  const settings = parseSettings(
    { mirrors: ["https://mirror.example.org"], publicKeys: [testKey("fleet-1").publicKey.text] },
    "web1",
  );
  return { ...settings.limits, ...changes };
}
