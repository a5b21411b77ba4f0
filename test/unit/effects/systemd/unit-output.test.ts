import { expect, test, vi } from "vitest";
import { unitOutput } from "../../../../agent/effects/systemd/unit-output.ts";
import { pathWith } from "../../../support/program-path.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const PATH = process.env["PATH"] ?? "";

/** A journal that answers to `--sync` with the first command, and to anything else with the second. */
async function journal(sync: string, read: string): Promise<void> {
  const journalctl = `case "$*" in
    --sync) ${sync};;
    *_SYSTEMD_INVOCATION_ID=a1b2*) ${read};;
    *) echo "unexpected: $*" >&2; exit 2;;
  esac`;
  vi.stubEnv("PATH", `${await pathWith([], { journalctl })}:${PATH}`);
}

const REFUSED = "echo \"Pre-switch check 'nfs' failed\"";

test("the last lines, which journald has only once it is asked to synchronize, are read", async () => {
  const synced = `${await temporaryDirectory()}/synced`;
  await journal(
    `touch ${synced}`,
    `${REFUSED}; [ ! -e ${synced} ] || echo "Pre-switch checks failed"`,
  );
  const output = await unitOutput("a1b2");
  expect(output?.lines()).toEqual(["Pre-switch check 'nfs' failed", "Pre-switch checks failed"]);
});

test("a journal that cannot synchronize is read as it is, and one that cannot be read gives null", async () => {
  await journal("exit 1", REFUSED);
  expect((await unitOutput("a1b2"))?.facts().failedChecks).toEqual(["nfs"]);
  await journal("true", "echo 'Failed to open journal' >&2; exit 1");
  expect(await unitOutput("a1b2")).toBeNull();
});
