import { describe, expect, test } from "vitest";
import type { Manifest } from "../../../../agent/core/formats/manifest.ts";
import { historyAfter } from "../../../../agent/core/release/release-history.ts";
import {
  NO_SIGNER_MEMORY,
  channelMemory,
  expectNewest,
  expectSignable,
  mergeMemories,
  rememberInForce,
  rememberSigned,
  reservedPlaces,
  signerMemorySchema,
  type RememberedRelease,
  type SignerMemory,
} from "../../../../agent/core/release/signer-memory.ts";
import { failureOf } from "../../../support/failure.ts";
import { sampleDigest, sampleManifest } from "../../../support/sample-release.ts";

const NAMES = { release: "/srv/mirror", memory: "fleet.memory" };

/** The release after another one; its digest is that of `name`. */
function after(
  before: RememberedRelease | null,
  changes: Partial<Manifest> = {},
  name = "",
): RememberedRelease {
  const sequence = changes.sequence ?? (before?.manifest.sequence ?? 0) + 1;
  const history = historyAfter(before && { ...before, signedBy: [] });
  return {
    manifest: sampleManifest({ history, ...changes, sequence }),
    digest: sampleDigest(`${sequence}${name}`),
  };
}

const first = after(null);
const second = after(first);
const third = after(second);
const inForce = (...releases: RememberedRelease[]): SignerMemory =>
  releases.reduce(rememberInForce, NO_SIGNER_MEMORY);
const newest = (memory: SignerMemory, current: RememberedRelease | null) => (): void => {
  expectNewest(channelMemory(memory, "stable"), current, NAMES);
};
const signable = (memory: SignerMemory, release: RememberedRelease) => (): void => {
  expectSignable(channelMemory(memory, "stable"), release, { ...NAMES, release: "draft.json" });
};

describe("the release in force on a mirror", () => {
  test("may be the remembered one, or any if nothing is remembered", () => {
    newest(inForce(third), third)();
    newest(NO_SIGNER_MEMORY, third)();
    newest(NO_SIGNER_MEMORY, null)();
  });

  test("may be newer than an older memory knows, if it comes after that", () => {
    newest(inForce(first), third)();
  });

  test("is behind if the mirror was set back", () => {
    const failure = failureOf(newest(inForce(first, second, third), first));
    expect(failure.code).toBe("RELEASE_BEHIND");
    expect(failure.message).toContain(`fleet.memory knows release 3 with digest ${third.digest}`);
    expect(failure.message).toContain(`/srv/mirror has release 1 with digest ${first.digest}`);
  });

  test("is behind if the mirror has none", () => {
    expect(failureOf(newest(inForce(third), null)).message).toContain("has no release");
  });

  test("contradicts the memory if it is another one of that number, or comes after one", () => {
    const other = after(first, {}, "other");
    for (const current of [other, after(other), after(after(other))]) {
      const failure = failureOf(newest(inForce(second), current));
      expect(failure.code).toBe("RELEASE_FORKED");
      expect(failure.message).toContain(second.digest);
      expect(failure.message).toContain(other.digest);
    }
  });

  test("may be of a new epoch, whatever it comes after", () => {
    const epoch = { number: 1, reason: "the mirror was set back" };
    newest(inForce(third), after(null, { epoch, sequence: 1 }))();
  });

  test("of other channels is none of its business", () => {
    const canary = after(null, { channel: "canary", sequence: 9 });
    newest(inForce(canary), first)();
    expect(inForce(third, canary).channels.map(({ channel }) => channel)).toEqual([
      "canary",
      "stable",
    ]);
  });
});

describe("a draft", () => {
  const drafted = rememberSigned(inForce(first), second);

  test("reserves its number, and is no release in force", () => {
    expect(reservedPlaces(channelMemory(drafted, "stable"))).toEqual([
      { epoch: 0, sequence: 1 },
      { epoch: 0, sequence: 2 },
    ]);
    newest(drafted, first)();
    expect(failureOf(signable(drafted, after(first, {}, "other"))).code).toBe("RELEASE_FORKED");
  });

  test("that is abandoned is skipped and not missed", () => {
    const next = after(first, { sequence: 3 });
    signable(drafted, next)();
    const later = rememberInForce(rememberSigned(drafted, next), next);
    newest(later, next)();
    expect(channelMemory(later, "stable").signed).toEqual([]);
  });

  test("is signed again, also after later ones", () => {
    signable(rememberSigned(drafted, after(first, { sequence: 3 })), second)();
  });

  test("that is older than one that was signed is refused", () => {
    const memory = rememberSigned(inForce(first), after(first, { sequence: 3 }));
    const failure = failureOf(signable(memory, second));
    expect(failure.code).toBe("RELEASE_BEHIND");
    expect(failure.message).toContain("release 3 was signed before");
  });

  test("that does not come after the release in force is refused", () => {
    const draft = after(first, { sequence: 4 });
    expect(failureOf(signable(inForce(third), draft)).code).toBe("RELEASE_FORKED");
  });

  test("says nothing of releases before it that nobody here knows", () => {
    const memory = rememberSigned(NO_SIGNER_MEMORY, third);
    expect(channelMemory(memory, "stable").inForce).toBeNull();
    newest(memory, first)();
    const invented = after(after(first, {}, "invented"));
    expect(channelMemory(rememberSigned(inForce(first), invented), "stable").inForce).toEqual({
      ...{ sequence: 1, digest: first.digest },
    });
  });

  test("says that the release before it is in force if that was signed here", () => {
    const memory = rememberSigned(rememberSigned(NO_SIGNER_MEMORY, second), third);
    expect(channelMemory(memory, "stable")).toMatchObject({
      inForce: { sequence: 2, digest: second.digest },
      signed: [{ sequence: 3 }],
    });
    expect(failureOf(newest(memory, first)).code).toBe("RELEASE_BEHIND");
  });
});

describe("two memories", () => {
  const merge = (one: SignerMemory, other: SignerMemory): SignerMemory =>
    mergeMemories(one, other, { one: "a.memory", other: "b.memory" });

  test("know together what either knows", () => {
    const canary = after(null, { channel: "canary", sequence: 9 });
    const drafted = rememberSigned(inForce(first, canary), second);
    const merged = merge(rememberSigned(inForce(first), third), drafted);
    expect(channelMemory(merged, "stable")).toMatchObject({
      inForce: { sequence: 1 },
      signed: [{ sequence: 2 }, { sequence: 3 }],
    });
    expect(channelMemory(merged, "canary").inForce).toMatchObject({ sequence: 9 });
    expect(channelMemory(merge(inForce(second), drafted), "stable")).toMatchObject({
      ...{ inForce: { sequence: 2 }, signed: [] },
    });
  });

  test("contradict each other if another release of one number is in force", () => {
    const failure = failureOf(() => merge(inForce(second), inForce(after(first, {}, "other"))));
    expect(failure.code).toBe("RELEASE_FORKED");
    expect(failure.message).toMatch(/a\.memory knows release 2 .*b\.memory knows release 2 /);
  });
});

test("an older release than is remembered to be in force changes nothing", () => {
  const memory = inForce(third);
  expect(rememberInForce(memory, first)).toBe(memory);
  expect(rememberSigned(memory, third)).toBe(memory);
});

test("what is remembered stays small and can be read again", () => {
  let memory = inForce(first);
  for (let sequence = 2; sequence < 300; sequence++) {
    memory = rememberSigned(memory, after(first, { sequence }));
  }
  expect(channelMemory(memory, "stable").signed).toHaveLength(200);
  expect(channelMemory(memory, "stable").signed.at(-1)?.sequence).toBe(299);
  expect(signerMemorySchema.parse(JSON.parse(JSON.stringify(memory)))).toEqual(memory);
});
