import { expect, test } from "vitest";
import {
  isTrustedUser,
  whyNotImported,
  type StoreAccess,
} from "../../../../agent/core/transfer/store-access.ts";
import { testKey } from "../../../support/test-key.ts";

const OURS = testKey("fleet-1").publicKey;
const OTHER = testKey("cache-1").publicKey;

/** A daemon that does not trust us and has another key. */
const REFUSING: StoreAccess = {
  ...{ via: "daemon", user: "agent", trusted: false },
  ...{ keys: [OTHER.text], requiresSignatures: true },
};

test("a daemon that does not trust us refuses what none of its keys signed", () => {
  expect(whyNotImported(REFUSING, [OURS])).toBe(
    "the Nix daemon does not trust user agent: expected a key of storeKeys (fleet-1) in its " +
      "trusted-public-keys, found cache-1; add the key to nix.settings.trusted-public-keys, or " +
      "agent to nix.settings.trusted-users",
  );
  expect(whyNotImported({ ...REFUSING, keys: [] }, [OURS])).toContain("found none;");
});

test.each<[string, Partial<StoreAccess>]>([
  ["Nix writes to the store itself", { via: "own" }],
  ["the daemon trusts us", { trusted: true }],
  ["nobody knows whether it does", { trusted: null }],
  ["it has one of the keys", { keys: [OTHER.text, OURS.text] }],
  ["nobody knows its keys", { keys: null }],
  ["it asks for no signatures", { requiresSignatures: false }],
])("nothing speaks against an import if %s", (_, change) => {
  expect(whyNotImported({ ...REFUSING, ...change }, [OURS])).toBeNull();
});

test("trusted-users name users, groups, or everybody", () => {
  const who = { user: "agent", groups: ["agent", "wheel"] };
  for (const users of [["*"], ["root", "agent"], ["@wheel"]]) {
    expect(isTrustedUser(users, who)).toBe(true);
  }
  for (const users of [[], ["root"], ["wheel"], ["@root"]]) {
    expect(isTrustedUser(users, who)).toBe(false);
  }
});
