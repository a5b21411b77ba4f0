import { expect, test } from "vitest";
import { hookVariables } from "../../../../agent/core/update/hook.ts";
import { sampleRelease } from "../../../support/sample-release.ts";

test("every hook is told the same names, empty where they do not apply", () => {
  const release = sampleRelease();
  const facts = { release, toplevel: release.toplevel, previous: null, result: "" } as const;
  expect(hookVariables("preActivate", "web1", facts)).toEqual({
    NIXOS_PULL_HOOK: "preActivate",
    NIXOS_PULL_HOSTNAME: "web1",
    NIXOS_PULL_CHANNEL: release.channel,
    NIXOS_PULL_RELEASE: String(release.sequence),
    NIXOS_PULL_DIGEST: release.digest,
    NIXOS_PULL_MODE: release.mode,
    NIXOS_PULL_TOPLEVEL: release.toplevel,
    NIXOS_PULL_PREVIOUS: "",
    NIXOS_PULL_RESULT: "",
    NIXOS_PULL_CODE: "",
    NIXOS_PULL_MESSAGE: "",
  });
  const back = { release: null, toplevel: "/a", previous: "/b", result: "reverted" } as const;
  expect(
    hookVariables("postRollback", "web1", {
      ...back,
      code: "HEALTH_FAILED",
      message: "two\nlines",
    }),
  ).toEqual({
    NIXOS_PULL_HOOK: "postRollback",
    NIXOS_PULL_HOSTNAME: "web1",
    NIXOS_PULL_CHANNEL: "",
    NIXOS_PULL_RELEASE: "",
    NIXOS_PULL_DIGEST: "",
    NIXOS_PULL_MODE: "",
    NIXOS_PULL_TOPLEVEL: "/a",
    NIXOS_PULL_PREVIOUS: "/b",
    NIXOS_PULL_RESULT: "reverted",
    NIXOS_PULL_CODE: "HEALTH_FAILED",
    NIXOS_PULL_MESSAGE: "two lines",
  });
  const first = { release, toplevel: null, previous: null, result: "committed" } as const;
  expect(hookVariables("postCommit", "web1", first)).toMatchObject({
    ...{ NIXOS_PULL_TOPLEVEL: "", NIXOS_PULL_PREVIOUS: "", NIXOS_PULL_RESULT: "committed" },
  });
});
