import { readdirSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nixosPull, startCommand, type CommandOutput } from "../support/nixos-pull.ts";
import { serveMirror } from "../support/mirror-server.ts";
import { publishReleases, type ReleaseSeries } from "../support/release-series.ts";
import { suiteDirectory } from "../support/suite-directory.ts";
import { temporaryDirectory } from "../support/temporary.ts";
import { codeOf, expectConvergence, expectWhole } from "./support/host-end.ts";
import { Tally } from "./support/sampling.ts";

const tally = new Tally();
const directory = suiteDirectory();
let series: ReleaseSeries;

beforeAll(async () => {
  series = await publishReleases(directory);
});
afterAll(() => {
  console.log(`clocks: ${tally.text()}`);
});

const LIBRARY = findLibrary();

function findLibrary(): string | null {
  for (const machine of ["x86_64-linux-gnu", "aarch64-linux-gnu"]) {
    const path = `/usr/lib/${machine}/faketime`;
    try {
      if (readdirSync(path).includes("libfaketimeMT.so.1")) return `${path}/libfaketimeMT.so.1`;
    } catch {
      // It is not installed, or another machine's.
    }
  }
  return null;
}

/** The environment of a process whose clock shows another time; its steady clock is right. */
function clock(time: string): Record<string, string> {
  return { LD_PRELOAD: LIBRARY ?? "", FAKETIME: time, FAKETIME_DONT_FAKE_MONOTONIC: "1" };
}

/** A host with a quick service, and its mirror. */
async function quickHost() {
  const mirror = await series.mirror(2);
  const server = await serveMirror(mirror.directory);
  const poll = { interval: "1s", jitter: "0s" };
  const host = await series.host({
    ...{ mirrors: [server.url], poll, log: { level: "debug" } },
    limits: { retryBase: "1s" },
  });
  const at = (time: string, ...args: string[]): Promise<CommandOutput> =>
    nixosPull([...args, "--config", host.configFile], clock(time));
  return { server, host, at };
}

describe.skipIf(LIBRARY === null)("a clock that is wrong", () => {
  test("by 60 days ahead during a failed download holds nothing up once it is right", async () => {
    const { server, host, at } = await quickHost();
    server.misbehave = (request, response) => {
      if (!request.url?.startsWith("/archives/")) return false;
      response.writeHead(503).end();
      return true;
    };
    const failed = await at("+60d", "apply", "--json");
    expect(codeOf(failed)).toBe("MIRROR_STATUS");
    tally.count("ahead: MIRROR_STATUS");
    await expectWhole(host, series);
    server.misbehave = () => false;
    const service = host.start("run");
    await service.sees("→ Committed");
    service.child.kill("SIGTERM");
    expect((await service.ended).exitCode).toBe(0);
    await expectConvergence(host, series);
  });

  test("in 1970 is named, changes nothing, and is forgotten", async () => {
    const { host, at } = await quickHost();
    const refused = await at("1970-01-02 00:00:00", "apply", "--json");
    expect(codeOf(refused), refused.stdout).toBe("CLOCK_BEHIND");
    tally.count("1970: CLOCK_BEHIND");
    await expectWhole(host, series);
    await expectConvergence(host, series);
  });

  test.each(["+400d", "-400d", "+20y"])(
    "by %s takes no release back, and is forgotten",
    async (by) => {
      const { host, at } = await quickHost();
      const output = await at(by, "apply", "--json");
      tally.count(`${by}: ${codeOf(output)}`);
      expect(codeOf(output), output.stdout).toMatch(
        /^(exit 0|CLOCK_|MANIFEST_EXPIRED|MIRROR_STALE)/,
      );
      await expectWhole(host, series);
      await expectConvergence(host, series);
    },
  );

  test("that jumps while the service waits makes it poll", async () => {
    const mirror = await series.mirror(1);
    // Of a mirror in a directory, the service would notice the release by itself.
    const { url } = await serveMirror(mirror.directory);
    const poll = { interval: "6h", jitter: "0s" };
    const host = await series.host({ mirrors: [url], poll, log: { level: "debug" } });
    const file = join(await temporaryDirectory(), "clock");
    await writeFile(file, "+0\n");
    const environment = {
      ...{ LD_PRELOAD: LIBRARY ?? "", FAKETIME_DONT_FAKE_MONOTONIC: "1" },
      ...{ FAKETIME_TIMESTAMP_FILE: file, FAKETIME_NO_CACHE: "1" },
    };
    const service = startCommand(["run", "--config", host.configFile], environment);
    await service.sees("next poll in");
    await mirror.release(2);
    await writeFile(file, "+3h\n");
    // It looks at its clock once a minute.
    await service.sees("ahead of the time that passed");
    await service.sees("→ Committed");
    service.child.kill("SIGTERM");
    expect((await service.ended).exitCode).toBe(0);
    tally.count("jump: polled");
    await expectConvergence(host, series);
  });
});
