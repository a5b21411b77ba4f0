import { expect, test } from "vitest";
import type { CheckResult } from "../../../../agent/core/doctor/result.ts";
import {
  judgeReportServer,
  judgeRoute,
  type Route,
  type ServerCertificate,
} from "../../../../agent/core/doctor/route.ts";
import { PullError } from "../../../../agent/core/errors.ts";
import { goodRoute } from "../../../support/memory-host.ts";

const NOW = new Date("2026-02-01T00:00:00Z");
const URL = "https://a.example.org/";
const GOOD = goodRoute("a.example.org", NOW);

function judged(change: Partial<Route>, address = URL): CheckResult[] {
  return judgeRoute(address, { ...GOOD, ...change }, NOW);
}

function refusedAs(refusal: string, change: Partial<ServerCertificate> = {}): CheckResult {
  if (GOOD.certificate.kind !== "done") throw new Error("no certificate");
  const value = { ...GOOD.certificate.value, ...change, refusal };
  const certificate = { kind: "done", value, ms: 1 } as const;
  const [, , tls] = judged({ certificate, answer: { kind: "skipped" } });
  if (tls?.id !== "mirror.tls") throw new Error("no result of TLS");
  return tls;
}

test("each step that works says what it gave", () => {
  expect(judged({}).map(({ id, outcome, found }) => [id, outcome, found])).toEqual([
    ["mirror.name", "passed", "192.0.2.1"],
    ["mirror.connection", "passed", "192.0.2.1, in 2 ms"],
    [
      "mirror.tls",
      "passed",
      "the certificate of a.example.org by Some Authority, valid until 2026-12-31T00:00:00.000Z",
    ],
    ["mirror.answer", "passed", "HTTP 200 after 4 ms"],
  ]);
});

test("a mirror without TLS has no certificate to be judged", () => {
  const ids = judged({ certificate: { kind: "skipped" } }, "http://a.example.org/").map(
    (it) => it.id,
  );
  expect(ids).toEqual(["mirror.name", "mirror.connection", "mirror.answer"]);
});

test.each<[string, Partial<ServerCertificate>, string, string]>([
  [
    "CERT_HAS_EXPIRED",
    { validTo: new Date("2026-01-31T00:00:00Z") },
    "expired at 2026-01-31T00:00:00.000Z; this host's clock says 2026-02-01T00:00:00.000Z",
    "renew the server's certificate",
  ],
  [
    "CERT_NOT_YET_VALID",
    { validFrom: new Date("2026-02-02T00:00:00Z") },
    "is valid from 2026-02-02T00:00:00.000Z; this host's clock says 2026-02-01T00:00:00.000Z",
    "set the clock",
  ],
  [
    "ERR_TLS_CERT_ALTNAME_INVALID",
    { names: "DNS:b.example.org" },
    "is for DNS:b.example.org",
    "correct the name",
  ],
  ["SELF_SIGNED_CERT_IN_CHAIN", {}, "is not trusted: SELF_SIGNED_CERT_IN_CHAIN", "tls.caFile"],
])("a certificate that is refused as %s is explained", (refusal, change, found, advice) => {
  const tls = refusedAs(refusal, change);
  expect(tls).toMatchObject({ outcome: "failed", code: "MIRROR_TLS" });
  expect(tls.found).toContain(found);
  expect(tls.advice).toContain(advice);
});

test("behind a proxy the first steps lead to it, and the answer proves the certificate", () => {
  const proxied = { proxy: "proxy.example.org:3128", certificate: { kind: "skipped" } } as const;
  const [name, connection, tls] = judged(proxied);
  expect(name?.found).toBe("192.0.2.1, of the proxy proxy.example.org:3128");
  expect(connection?.found).toContain("of the proxy");
  expect(tls).toMatchObject({ outcome: "passed" });
  const error = new PullError("MIRROR_TLS", "self-signed certificate");
  const refused = judged({ ...proxied, answer: { kind: "failed", error } });
  expect(refused[2]).toMatchObject({ id: "mirror.tls", outcome: "failed", code: "MIRROR_TLS" });
  expect(judged({ ...proxied, answer: { kind: "skipped" } })[2]?.outcome).toBe("untried");
});

test.each([
  [200, "passed"],
  [404, "passed"],
  [302, "passed"],
  [401, "failed"],
  [403, "failed"],
  [407, "failed"],
  [503, "failed"],
])("an answer of HTTP %i is %s", (status, outcome) => {
  const answer = { kind: "done", value: { status, date: null }, ms: 3 } as const;
  const result = judged({ answer }).find(({ id }) => id === "mirror.answer");
  expect(result?.outcome).toBe(outcome);
});

test("a server for reports may refuse to show them, and must answer", () => {
  const answers = (status: number): string =>
    judgeReportServer(URL, {
      ...GOOD,
      answer: { kind: "done", value: { status, date: null }, ms: 3 },
    }).outcome;
  expect([200, 404, 405, 401, 500].map(answers)).toEqual([
    ...["passed", "passed", "passed", "failed", "failed"],
  ]);
  const error = new PullError("MIRROR_UNREACHABLE", "ECONNREFUSED");
  const unreachable = { ...GOOD, connection: { kind: "failed", error } } as const;
  expect(judgeReportServer(URL, unreachable)).toMatchObject({ code: "MIRROR_UNREACHABLE" });
});
