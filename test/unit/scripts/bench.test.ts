import { expect, test } from "vitest";
import { fleetManifest, importCore } from "../../../scripts/bench/support/fleet-manifest.mjs";
import { temporaryDirectory } from "../../support/temporary.ts";

test("benchmarks find the formats that they forge manifests with", async () => {
  const core = await importCore(await temporaryDirectory());
  expect(core.encodeManifest(fleetManifest(3)).length).toBeGreaterThan(1000);
});
