import { describe, expect, test } from "vitest";
import type { Manifest } from "../../../../agent/core/formats/manifest.ts";
import { hostEntries } from "../../../../agent/operator/publish/host-entries.ts";
import { sampleHost, sampleManifest, samplePath } from "../../../support/sample-release.ts";

/** A release whose default is to boot; web2 switches all the same. */
const CURRENT: Manifest = sampleManifest({
  defaults: { activation: { mode: "boot" } },
  hosts: {
    web1: sampleHost(),
    web2: sampleHost({ activation: { mode: "switch" }, turn: { held: "under test" } }),
  },
});
const NOTHING = {
  hosts: [],
  failed: [],
  mode: "switch",
  refresh: false,
  keepHosts: false,
} as const;

describe("the entries of a new release", () => {
  test("that are kept have the activation that they had", () => {
    const { web1, web2 } = hostEntries({ ...NOTHING, keepHosts: true }, CURRENT, {});
    expect(web1?.activation).toEqual({ mode: "boot" });
    // The new release's default.
    expect(web2?.activation).toEqual({ mode: "switch" });
  });

  test("of a refresh are the current ones, since its defaults stay too", () => {
    for (const keepHosts of [false, true]) {
      expect(hostEntries({ ...NOTHING, refresh: true, keepHosts }, CURRENT, {})).toEqual(
        CURRENT.hosts,
      );
    }
  });

  test("of a new system keep a hold, and nothing else of the entry before", () => {
    const { archive, closureSize } = sampleHost();
    const toplevel = samplePath("nixos-system-web2-2");
    const packed = { toplevel, closureSize, archive, paths: 3, mode: "boot", reused: false };
    const hosts = [{ hostname: "web2", source: { kind: "storePath", path: toplevel } }] as const;
    const entries = hostEntries({ ...NOTHING, hosts }, CURRENT, {
      web2: { ...packed, mode: "boot", specialisation: null, platform: "x86_64-linux" },
    });
    expect(entries).toEqual({
      web2: {
        ...{ toplevel, closureSize, archive, platform: "x86_64-linux" },
        ...{ activation: { mode: "boot" }, turn: { held: "under test" } },
      },
    });
  });
});
