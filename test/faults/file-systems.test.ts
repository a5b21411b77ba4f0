import { execFileSync } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { publishReleases, type ReleaseSeries } from "../support/release-series.ts";
import type { SandboxHost } from "../support/sandbox.ts";
import { moveToTmpfs, resize, whyNoMounts } from "../support/scratch-mount.ts";
import { suiteDirectory } from "../support/suite-directory.ts";
import { codeOf, expectConvergence, expectWhole } from "./support/host-end.ts";
import { pick, randomFor, samples, SEED, Tally } from "./support/sampling.ts";

const random = randomFor("file-systems");
const tally = new Tally();
const directory = suiteDirectory();
let series: ReleaseSeries;

beforeAll(async () => {
  series = await publishReleases(directory);
});
afterAll(() => {
  console.log(`file systems: ${tally.text()}`);
});

/** What may be too small, and how many more files and KiB an update takes there at least. */
const PLACES = {
  state: { path: (host: SandboxHost) => host.state, files: 12, kibibytes: 60 },
  staging: { path: (host: SandboxHost) => host.staging, files: 6, kibibytes: 2_900 },
  store: { path: (host: SandboxHost) => join(host.root, "nix"), files: 12, kibibytes: 3_000 },
} as const;

const noMounts = whyNoMounts();

describe.skipIf(noMounts !== null)(`a file system that is too small (seed ${SEED})`, () => {
  const cases = Array.from({ length: samples(6) }, (_, at) => {
    const names = ["state", "staging", "store"] as const;
    const what = pick(random, ["files", "kibibytes"] as const);
    return { place: names[at % names.length] ?? "state", what, share: random() };
  });

  test.each(cases)(
    "for the $place, by its $what, is named (%#)",
    async ({ place, what, share }) => {
      const mirror = await series.mirror(2);
      const host = await series.host({ mirrors: [mirror.address] });
      const { path, ...needs } = PLACES[place];
      await mkdir(path(host), { recursive: true });
      await moveToTmpfs(path(host), "64m,nr_inodes=100000");
      const left = Math.floor(needs[what] * share);
      const number = (column: string): number =>
        Number(
          execFileSync("df", [`--output=${column}`, "-k", path(host)], { encoding: "utf8" }).split(
            "\n",
          )[1],
        );
      const small =
        what === "files"
          ? `64m,nr_inodes=${number("iused") + left}`
          : `${Math.max(4, number("used") + left)}k`;
      resize(path(host), small);
      const output = await host.run("apply", "--json");
      const code = codeOf(output);
      tally.count(`${place}, ${what}: ${code}`);
      expect(code, `${left} ${what} left\n${output.stdout}${output.stderr}`).toMatch(
        /^(exit 0|DISK_FULL)$/,
      );
      await expectWhole(host, series);
      resize(path(host), "64m,nr_inodes=100000");
      await expectConvergence(host, series);
    },
  );
});
