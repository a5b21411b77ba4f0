import { describe, expect, test } from "vitest";
import {
  packageChanges,
  parseName,
  type SizedPath,
} from "../../../../agent/core/release/package-difference.ts";
import { samplePath } from "../../../support/sample-release.ts";

const path = (name: string, narSize = 100, build = ""): SizedPath => ({
  // The hash is another one for another build of the same name.
  storePath: samplePath(`${name}${build}`).slice(0, 44) + name,
  narSize,
});

describe("the name of a store path", () => {
  test.each([
    ["openssl-3.0.15", "openssl", "3.0.15"],
    ["openssl-3.0.15-bin", "openssl", "3.0.15"],
    ["python3.11-requests-2.31.0", "python3.11-requests", "2.31.0"],
    ["linux-6.6.58-modules", "linux", "6.6.58"],
    ["nixos-system-web1-24.05.20240531.63dacb4", "nixos-system-web1", "24.05.20240531.63dacb4"],
    ["unit-nginx.service", "unit-nginx.service", ""],
    ["etc", "etc", ""],
    ["glibc-locales-2.39-52", "glibc-locales", "2.39-52"],
  ])("%s is %s in version %j", (full, name, version) => {
    expect(parseName(full)).toEqual({ name, version });
  });
});

describe("packages of two closures", () => {
  test("change their versions, with their sizes", () => {
    const before = [path("openssl-3.0.15", 100), path("openssl-3.0.15-bin", 10)];
    const after = [path("openssl-3.0.16", 120), path("openssl-3.0.16-bin", 10)];
    expect(packageChanges(before, after)).toEqual([
      {
        ...{ name: "openssl", kind: "changed", before: ["3.0.15"], after: ["3.0.16"] },
        ...{ beforeBytes: 110, afterBytes: 130 },
      },
    ]);
  });

  test("come and go, and may be there in two versions", () => {
    const before = [path("curl-8.0"), path("zlib-1.2"), path("zlib-1.3")];
    const after = [path("wget-1.2"), path("zlib-1.3")];
    const found = packageChanges(before, after).map(({ name, kind, before: old, after: next }) => [
      ...[name, kind],
      ...[old.join(), next.join()],
    ]);
    expect(found).toEqual([
      ["curl", "removed", "8.0", ""],
      ["wget", "added", "", "1.2"],
      ["zlib", "changed", "1.2,1.3", "1.3"],
    ]);
  });

  test("of the same version and another hash are rebuilt", () => {
    const [change] = packageChanges([path("curl-8.0")], [path("curl-8.0", 101, "again")]);
    expect(change).toMatchObject({
      name: "curl",
      kind: "rebuilt",
      beforeBytes: 100,
      afterBytes: 101,
    });
  });

  test("that are the same are not named", () => {
    const closure = [path("curl-8.0"), path("etc"), path("unit-nginx.service")];
    expect(packageChanges(closure, [...closure].reverse())).toEqual([]);
  });

  test("without a version are compared by their hash", () => {
    const [change] = packageChanges([path("etc")], [path("etc", 200, "again")]);
    expect(change).toMatchObject({ name: "etc", kind: "rebuilt", before: [""], after: [""] });
  });
});
