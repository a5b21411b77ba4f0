import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fleetView } from "../../../../agent/core/fleet/fleet.ts";
import { fleetPage } from "../../../../agent/fleet/page/page.ts";
import { FLEET_OPTIONS, hostileView, sampleView } from "../../../support/sample-fleet.ts";

/** Element names in the order of their tags. */
const tagsOf = (html: string): string => (html.match(/<[^>]*?(?=[\s>])/g) ?? []).join("");

describe("fleetPage", () => {
  it("allows its own style and script by their hashes, and nothing else", () => {
    const html = fleetPage(sampleView(50));
    const policy = /Content-Security-Policy" content="([^"]*)"/.exec(html)![1]!;
    for (const tag of ["style", "script"]) {
      const [, text = ""] = new RegExp(`<${tag}>([^]*?)</${tag}>`).exec(html)!;
      const hash = createHash("sha256").update(text).digest("base64");
      expect(policy).toContain(`${tag}-src 'sha256-${hash}'`);
    }
    expect(policy).toMatch(/^default-src 'none';/);
    expect(html).not.toMatch(/\s(src|href|style|on[a-z]+)="/);
    expect(html).not.toMatch(/https?:\/\/(?!releases\.example\.org)/);
  });

  it("has the same tags whatever hosts say", () => {
    const plain = tagsOf(fleetPage(hostileView("plain")));
    const attempts = [
      "<script>alert(1)</script>",
      `"><img src=x onerror=alert(1)>`,
      "'`--></style></script><svg onload=alert(1)>",
      "&lt;b&gt;",
      "\u001b]0;title\u0007\u001b[2J",
    ];
    for (const attempt of attempts) {
      const html = fleetPage(hostileView(attempt));
      expect(tagsOf(html)).toBe(plain);
      expect(html).not.toContain("\u001b");
      expect(html).not.toContain("<img");
    }
    fc.assert(
      fc.property(fc.string({ unit: "binary", minLength: 1, maxLength: 300 }), (text) => {
        expect(tagsOf(fleetPage(hostileView(text)))).toBe(plain);
      }),
      { numRuns: 30 },
    );
  });

  it("draws a whole curve for a large fleet", () => {
    const html = fleetPage(sampleView(1000));
    const path = /class="line" d="([^"]*)"/.exec(html)![1]!;
    expect(path).toMatch(/^M0 240(H[\d.]+V[\d.]+)+H1000$/);
    expect(path.length).toBeLessThan(10_000);
    expect(html.match(/<tr data-standing/g)).toHaveLength(1000);
  });

  it("shows a fleet of which nothing is known", () => {
    const nothing = fleetView({ reports: [], manifests: [], distrusted: [] }, FLEET_OPTIONS);
    expect(fleetPage(nothing)).toContain("0 hosts");
  });
});

it("names the release whose failure's output it shows", () => {
  expect(fleetPage(sampleView(50))).toMatch(/the update to release \d+ failed at 2026-/);
});
