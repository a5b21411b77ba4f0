import { expect, test } from "vitest";
import { describeOutdated, outdatedAgent } from "../../../../agent/core/fleet/outdated-agents.ts";
import { fleetView } from "../../../../agent/core/fleet/fleet.ts";
import { FLEET_NOW, sampleManifest, sampleReport } from "../../../support/sample-fleet.ts";
import { sampleDigest } from "../../../support/sample-release.ts";

const until = "2030-01-01T00:00:00.000Z";
const way = { sequence: 11, digest: sampleDigest("release 11"), until };
const manifest = { requires: ["tree"], supported: [way] };
const old = sampleReport("web1").release;
const at = (sequence: number) =>
  sampleReport("web1", {
    release: old && { ...old, sequence, digest: sampleDigest(`release ${sequence}`) },
    accepted: null,
  });

test("an agent that understands everything is not outdated", () => {
  expect(outdatedAgent(manifest, { ...at(10), features: ["tree", "more"] })).toBeNull();
  expect(outdatedAgent({}, at(10))).toBeNull();
});

test("one that does not becomes the older release first", () => {
  const found = outdatedAgent(manifest, at(10));
  expect(found).toMatchObject({ lacks: ["tree"], first: { sequence: 11 } });
  expect(found && describeOutdated(found)).toBe(
    "its agent 0.1.0 lacks tree; it becomes release 11 first",
  );
  expect(outdatedAgent(manifest, sampleReport("web1", { release: null }))).toMatchObject({
    first: { sequence: 11 },
  });
});

test.each([
  ["it is that release already", manifest, at(11)],
  ["it was a later one", manifest, at(12)],
  ["none is supported", { requires: ["tree"] }, at(10)],
  [
    "those need what it lacks too",
    { ...manifest, supported: [{ ...way, requires: ["more"] }] },
    at(10),
  ],
])("one that cannot follow is told: %s", (_, release, report) => {
  const found = outdatedAgent(release, report);
  expect(found).toMatchObject({ lacks: ["tree"], first: null });
  expect(found && describeOutdated(found)).toContain("it cannot follow");
});

test("fleet says so of a host that is behind", () => {
  const target = { ...sampleManifest(["web1"]), ...manifest };
  const report = sampleReport("web1", {
    release: at(10).release && {
      ...at(10).release!,
      toplevel: "/nix/store/00000000000000000000000000000000-x",
    },
  });
  const input = {
    reports: [report],
    manifests: [{ manifest: target, digest: "" }],
    distrusted: [],
  };
  const [host] = fleetView(input, { now: FLEET_NOW, silentAfter: 86_400_000 }).hosts;
  expect(host).toMatchObject({
    standing: "behind",
    note: "its agent 0.1.0 lacks tree; it becomes release 11 first",
  });
});
