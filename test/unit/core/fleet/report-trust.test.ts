import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { sealEnvelope } from "../../../../agent/core/formats/envelope.ts";
import { parsePublicKey } from "../../../../agent/core/formats/signing-key.ts";
import { sealReport } from "../../../../agent/core/formats/report.ts";
import { believeReport } from "../../../../agent/core/fleet/report-trust.ts";
import { hostKeyOf, sampleReport, sealedReport } from "../../../support/sample-fleet.ts";
import { testKey } from "../../../support/test-key.ts";

const keys = [hostKeyOf("web1").publicKey];
const known = { keys, at: null };
const bytes = Buffer.from(sealedReport(sampleReport("web1")));

describe("believeReport", () => {
  it("believes a host's own report under its own key", () => {
    expect(believeReport("web1", bytes, known)).toMatchObject({
      kind: "believed",
      report: { hostname: "web1" },
    });
    const both = { keys: [testKey("next").publicKey, ...keys], at: null };
    expect(believeReport("web1", bytes, both).kind).toBe("believed");
  });

  it("refuses an older one, and takes the same one twice", () => {
    const at = sampleReport("web1").at;
    expect(believeReport("web1", bytes, { keys, at }).kind).toBe("believed");
    const later = new Date(Date.parse(at) + 1).toISOString();
    expect(believeReport("web1", bytes, { keys, at: later })).toMatchObject({
      reason: "REPORT_REPLAYED",
    });
  });

  it("refuses one host's report in another's name, even by a key that is known for both", () => {
    expect(believeReport("web2", bytes, known)).toMatchObject({ reason: "REPORT_INVALID" });
  });

  it("tells a changed key from a forgery", () => {
    const thief = testKey("thief");
    const named = sampleReport("web1", { publicKey: thief.publicKey.text });
    const changed = believeReport("web1", Buffer.from(sealReport(named, thief)), known);
    expect(changed).toMatchObject({ reason: "KEY_CHANGED" });
    // It names the host's key, but somebody else signed it.
    const claims = sampleReport("web1", { publicKey: keys[0]!.text });
    const forged = Buffer.from(sealReport(claims, thief));
    expect(believeReport("web1", forged, known)).toMatchObject({ reason: "REPORT_INVALID" });
  });

  it("trusts a new host only where it is told to, and then the key that signed", () => {
    const nobody = { keys: [], at: null };
    expect(believeReport("web1", bytes, nobody)).toMatchObject({ reason: "KEY_UNKNOWN" });
    expect(believeReport("web1", bytes, nobody, true)).toMatchObject({ kind: "believed" });
    const claims = sampleReport("web1", { publicKey: keys[0]!.text });
    const forged = Buffer.from(sealReport(claims, testKey("thief")));
    expect(believeReport("web1", forged, nobody, true).kind).toBe("distrusted");
    // What is pinned already is not replaced.
    const other = { keys: [testKey("other").publicKey], at: null };
    expect(believeReport("web1", bytes, other, true)).toMatchObject({ reason: "KEY_CHANGED" });
  });

  it("says what it expected and what it found", () => {
    const said = (...args: Parameters<typeof believeReport>): string => {
      const belief = believeReport(...args);
      return belief.kind === "believed" ? "" : `${belief.reason}: ${belief.message}`;
    };
    const report = sampleReport("web1");
    const later = new Date(Date.parse(report.at) + 1).toISOString();
    const own = hostKeyOf("web1").publicKey;
    const [thief, other] = [testKey("thief"), testKey("other").publicKey];
    const nobody = { keys: [], at: null };
    expect(said("web2", bytes, known)).toBe(
      "REPORT_INVALID: expected a report by web2, found one by web1",
    );
    expect(said("web1", bytes, { keys, at: later })).toBe(
      `REPORT_REPLAYED: expected a report no older than ${later}, found one of ${report.at}`,
    );
    expect(said("web1", bytes, nobody)).toBe(
      `KEY_UNKNOWN: no key is known for it; its report is signed with ${own.text}`,
    );
    const claims = { ...report, publicKey: own.text };
    const forged = Buffer.from(sealReport(claims, thief));
    const unknown =
      "KEY_UNKNOWN: no key is known for it, and its report names none that it is signed with";
    expect(said("web1", forged, nobody)).toBe(unknown);
    // Neither a report without a key nor one whose key is none names one.
    expect(said("web1", Buffer.from(sealReport(report, thief)), nobody, true)).toBe(unknown);
    const odd = Buffer.from(sealReport({ ...report, publicKey: "odd" }, thief));
    expect(said("web1", odd, nobody, true)).toBe(unknown);
    const named = { ...report, publicKey: thief.publicKey.text };
    const changed = Buffer.from(sealReport(named, thief));
    expect(said("web1", changed, { keys: [own, other], at: null })).toBe(
      `KEY_CHANGED: expected the key ${own.text} or ${other.text}, found one signed with ` +
        `${thief.publicKey.text}: a new installation, a lost state directory, or somebody who ` +
        "pretends to be this host",
    );
    expect(said("web1", Buffer.from("{"), known)).toMatch(/^REPORT_INVALID: ./);
  });

  it("takes a release by a known key for no report, and names no key for it", () => {
    const payload = Buffer.from(
      JSON.stringify({ ...sampleReport("web1"), publicKey: keys[0]!.text }),
    );
    const release = Buffer.from(sealEnvelope(payload, [hostKeyOf("web1")]));
    expect(believeReport("web1", release, known)).toMatchObject({ reason: "REPORT_INVALID" });
    expect(believeReport("web1", release, { keys: [], at: null }, true)).toMatchObject({
      reason: "KEY_UNKNOWN",
    });
  });

  it("says that a report is wrong, not its key, if the known key signed it under another name", () => {
    const own = hostKeyOf("web1").publicKey;
    const alias = parsePublicKey(own.text.replace(/^[^:]+/, "alias"));
    expect(believeReport("web2", bytes, { keys: [alias], at: null })).toMatchObject({
      reason: "REPORT_INVALID",
    });
    const wrong = { ...sampleReport("web1"), publicKey: own.text, state: "x".repeat(99) };
    const sealed = Buffer.from(sealReport(wrong, hostKeyOf("web1")));
    expect(believeReport("web1", sealed, known)).toMatchObject({
      ...{ reason: "REPORT_INVALID", message: expect.stringContaining("state: ") },
    });
  });

  it("never believes bytes that were changed, and never throws", () => {
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const changed = Buffer.from(bytes);
        changed[at] = changed[at]! ^ flip;
        const belief = believeReport("web1", changed, known, true);
        // Some bytes carry nothing, such as white space or the key's name in the envelope.
        if (belief.kind === "believed") expect(belief.report).toMatchObject(sampleReport("web1"));
      }),
      { numRuns: 50 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (junk) => {
        expect(believeReport("web1", junk, known, true).kind).toBe("distrusted");
      }),
    );
  });
});
