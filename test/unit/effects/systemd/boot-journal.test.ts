import { expect, test, vi } from "vitest";
import { failedInBoot } from "../../../../agent/effects/systemd/boot-journal.ts";
import { pathWith } from "../../../support/program-path.ts";

const PATH = process.env["PATH"] ?? "";

/** A journal that answers like this, if the agent asks for the activation of this boot. */
async function journal(script: string): Promise<void> {
  const journalctl = `case "$*" in
    *--boot*_TRANSPORT=kernel*_SYSTEMD_UNIT=initrd-nixos-activation.service*) ${script};;
    *) echo "unexpected: $*" >&2; exit 2;;
  esac`;
  vi.stubEnv("PATH", `${await pathWith([], { journalctl })}:${PATH}`);
}

test("snippets that failed in the boot are read from stage 2's lines and from the initrd's", async () => {
  await journal(
    `printf '%s\\n' "stage-2-init: Activation script snippet 'setupSecrets' failed (1)" \
      "Activation script snippet 'users' failed (127)" \
      "stage-2-init: Activation script snippet 'setupSecrets' failed (1)"`,
  );
  expect(await failedInBoot()).toEqual([
    { name: "setupSecrets", code: 1 },
    { name: "users", code: 127 },
  ]);
});

test("a boot without such lines has none, and a journal that cannot be read says nothing", async () => {
  await journal("exit 1");
  expect(await failedInBoot()).toEqual([]);
  await journal("echo 'Failed to open journal' >&2; exit 1");
  expect(await failedInBoot()).toBeNull();
});
