import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { buildSystem } from "../support/closure.ts";
import { nixosPull } from "../support/nixos-pull.ts";
import { createOperator, type Operator } from "../support/sandbox.ts";

/** What is there: a mirror with release 1 of stable for web1, a file `file` and a directory `none`. */
async function world(): Promise<Operator> {
  const operator = await createOperator();
  await operator.publish({ web1: await buildSystem() });
  await writeFile(join(operator.directory, "file"), "x");
  await mkdir(join(operator.directory, "none"));
  return operator;
}

/** A command line; DIR, MIRROR, KEY and PUBLIC stand for the operator's own. What is said of it. */
const WRONG: readonly (readonly [args: string, why: RegExp, exitCode: number])[] = [
  ["keygen x --out DIR/nosuch/x", /x\.secret: expected a directory that exists/, 2],
  ["publish -m MIRROR -k DIR/nosuch", /nosuch: expected a secret key file, found none\n/, 3],
  ["publish -m MIRROR -k DIR/none", /none: expected a secret key file, found none \(/, 3],
  ["publish -m DIR/file -k KEY --host web1=x.nix", /file: expected a directory for the mirror/, 2],
  ["publish -m MIRROR -k KEY --mode x", /--mode: expected .* or dry-activate, found "x"/, 2],
  ["publish -m MIRROR -k KEY --expires 12", /--expires: expected a duration .*, found "12"/, 2],
  ["publish -m MIRROR -k KEY --paused=", /--paused: expected a reason/, 2],
  ["publish -m MIRROR -k KEY --over x", /USAGE: --over: expected a duration [^;]*, found "x";/, 2],
  ["publish -m MIRROR -k KEY --waves 200%=1h", /--waves: .* up to 100% .*, found "200%"/, 2],
  ["publish -m MIRROR -k KEY --waves web1=1x", /--waves: expected a duration .*, found "1x"/, 2],
  ["publish -m MIRROR -k KEY --hosts DIR/file", /file: expected JSON, or a Nix file/, 3],
  ["publish -m MIRROR -k KEY -p x", /KEY_INVALID: --public-key: expected a public key/, 3],
  ["publish -m MIRROR --host web1=x.nix", /^nixos-pull: USAGE: expected --store-key or --key/, 2],
  ["verify MIRROR -p PUBLIC --store-key x", /KEY_INVALID: --store-key: expected/, 3],
  ["verify DIR/nosuch -p PUBLIC", /expected a mirror's directory, or a file .*, found nothing/, 5],
  ["verify DIR/file -p PUBLIC", /file: expected a signed manifest as JSON/, 4],
  ["sign MIRROR -k KEY --channel beta", /channel beta in .*, found only stable/, 2],
  ["sign DIR/none -k KEY", /expected a mirror's directory, found no release in .*none/, 2],
  ["release show -m MIRROR --channel beta", /channel beta in .*, found only stable/, 2],
  ["release show -m DIR/nosuch", /expected a mirror's directory, found no release in/, 2],
  ["release diff -m DIR/nosuch", /expected a mirror's directory, found no release in/, 2],
  ["release edit -m MIRROR -k KEY --hold web1", /--hold: expected HOST=REASON, found "web1"/, 2],
  ["release edit -m MIRROR", /^nixos-pull: USAGE: expected a --key or --signer/, 2],
  ["release edit -m DIR/nosuch -k KEY --everyone", /found no release in .*nosuch/, 10],
  ["release pause -m MIRROR -k KEY --", /missing required argument 'reason'/, 2],
  ["release abort -m MIRROR -k KEY --channel beta", /channel beta in .*, found only stable/, 10],
  ["release promote -m MIRROR -k KEY --from beta --to stable", /channel beta in/, 10],
  ["release promote -m MIRROR -k KEY --from stable --to ../x", /--to: expected a channel/, 2],
  ["mirror --reports DIR/nosuch DIR/home", /nosuch: expected a directory with reports/, 5],
  ["mirror MIRROR DIR/file -p PUBLIC", /file: expected a directory for the mirror/, 2],
  ["prune MIRROR --keep 0", /--keep: expected a positive number, found "0"/, 2],
  ["fleet DIR/nosuch", /nosuch: expected a directory with reports, found none/, 5],
  ["fleet DIR/file", /file: expected a directory with reports, .*`nixos-pull verify FILE`/, 5],
  ["fleet MIRROR --keys DIR/nosuch", /--keys: .*nosuch: expected .*, found nothing/, 3],
  ["fleet MIRROR --keys DIR/none", /--keys: .*none: expected HOST\.public files, found none/, 3],
  ["fleet MIRROR -m MIRROR", /CONFIG_NOT_FOUND: expected --public-key NAME:BASE64, or/, 3],
  ["fleet MIRROR --user-file DIR/file", /--user-file: expected the address of a server/, 2],
  ["fleet MIRROR --html DIR/nosuch/x", /--html .*: expected a directory that exists/, 2],
];

test("a wrong input is told with what was expected, what was found and the option", async () => {
  const operator = await world();
  const own = new Map([
    ["KEY", operator.keyFile],
    ["PUBLIC", operator.publicKey],
    ["MIRROR", operator.mirror],
  ]);
  const before = (await readdir(operator.directory)).sort();
  for (const [line, why, exitCode] of WRONG) {
    const args = line
      .split(" ")
      .map((word) => own.get(word) ?? word.replace(/^DIR/, operator.directory));
    const output = await nixosPull(args);
    expect(output.stderr, line).toMatch(why);
    expect(output.exitCode, line).toBe(exitCode);
    expect(output.stdout, line).toBe("");
  }
  // A wrong name makes no directory.
  expect((await readdir(operator.directory)).sort()).toEqual(before);
});

test("a server without names to ask for is told, not taken for an empty fleet", async () => {
  const output = await nixosPull(["fleet", "http://127.0.0.1:1/"]);
  expect(output.stderr).toMatch(
    /a server has no list of its hosts.*--manifest, --keys or --memory/,
  );
});
