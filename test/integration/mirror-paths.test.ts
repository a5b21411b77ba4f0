import { mkdir, readdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { nixosPull } from "../support/nixos-pull.ts";
import { publishReleases, type ReleaseSeries } from "../support/release-series.ts";
import { suiteDirectory } from "../support/suite-directory.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const directory = suiteDirectory();
let series: ReleaseSeries;
beforeAll(async () => {
  series = await publishReleases(directory);
});

/** As file managers mount sticks, and as people name directories. */
const NAMES = ["MY STICK", "100%, nr #1?", "Müllers Stick", "-m"];

describe.each(NAMES)("a mirror in a directory called %j", (name) => {
  test("is followed and verified", async () => {
    const published = await series.mirror(2);
    const mirror = join(await temporaryDirectory(), name);
    await rename(published.directory, mirror);
    const host = await series.host({ mirrors: [pathToFileURL(mirror).href] });
    const updated = await host.run("apply");
    expect(updated.exitCode, updated.stderr).toBe(0);
    expect(await host.profileToplevel()).toBe(series.toplevels[2]);
    const verified = await nixosPull(["verify", "--public-key", series.publicKey, "--", mirror]);
    expect(verified.exitCode, verified.stderr).toBe(0);
  });
});

// A store URI would read some of these as syntax, and Nix decodes none of them.
const PUBLISHED = ["MY STICK", "100% mirror", "what?", "nr #1", "Müllers Stick", "a&b;c", "-m"];

async function publishTo(name: string): Promise<void> {
  const parent = await temporaryDirectory();
  await mkdir(join(parent, name));
  const mirror = join(parent, name);
  const published = await nixosPull([
    ...["publish", `--mirror=${mirror}`, "--key", series.keyFile],
    ...["--memory", join(await temporaryDirectory(), "memory")],
    ...["--host", `web1=${series.toplevels[1]}`],
  ]);
  expect(published.exitCode, published.stderr).toBe(0);
  expect(await readdir(parent)).toEqual([name]);
  const verified = await nixosPull(["verify", "--public-key", series.publicKey, "--", mirror]);
  expect(verified.exitCode, verified.stderr).toBe(0);
}

test.each(PUBLISHED)("a release is published into a directory called %j", publishTo);
