import { expect, test } from "vitest";
import { checkHealth } from "../../../agent/core/health.ts";
import type { ActivationMode } from "../../../agent/core/manifest.ts";
import { samplePath, sampleRelease } from "../../support/sample-release.ts";

const NEW = sampleRelease().toplevel;
const OLD = samplePath("nixos-system-web1-old");

test.each<[ActivationMode, string | null, string | null, boolean]>([
  ["switch", NEW, NEW, false],
  ["switch", NEW, null, false],
  ["switch", NEW, OLD, true],
  ["boot", NEW, OLD, false],
  ["boot", NEW, null, false],
  ["test", OLD, NEW, false],
  ["test", null, NEW, false],
  ["test", OLD, OLD, true],
  ["test", null, null, false],
  ["dry-activate", OLD, OLD, false],
  ["dry-activate", null, null, false],
])(
  "after %s a host with profile %s that runs %s is well (reboot: %s)",
  (mode, profile, running, reboot) => {
    expect(checkHealth(sampleRelease({ mode }), { profile, running }, reboot)).toBeNull();
  },
);

test.each<[ActivationMode, string | null, string | null, boolean, string]>([
  ["switch", OLD, NEW, false, `the system profile: expected ${NEW}, found ${OLD}`],
  ["switch", null, NEW, false, `the system profile: expected ${NEW}, found nothing`],
  ["switch", OLD, NEW, true, `the system profile: expected ${NEW}, found ${OLD}`],
  ["switch", NEW, OLD, false, `the running system: expected ${NEW}, found ${OLD}`],
  ["boot", OLD, NEW, false, `the system profile: expected ${NEW}, found ${OLD}`],
  ["test", NEW, OLD, false, `the running system: expected ${NEW}, found ${OLD}`],
])(
  "after %s a host with profile %s that runs %s is not well (reboot: %s)",
  (mode, profile, running, reboot, words) => {
    expect(checkHealth(sampleRelease({ mode }), { profile, running }, reboot)).toBe(words);
  },
);
