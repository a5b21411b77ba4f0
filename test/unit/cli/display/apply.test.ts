import { expect, test } from "vitest";
import { describeApply } from "../../../../agent/cli/display/apply.ts";
import { plain } from "../../../../agent/cli/display/screen.ts";
import { Times } from "../../../../agent/core/text/times.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";
import { waitingHost } from "../../../support/waiting-host.ts";

/** What `apply` tells a person. */
async function applied(host: MemoryHost): Promise<string[]> {
  const [before, begin] = [host.record, host.time.now()];
  const outcome = await tick(host.tools, { insistence: "retry" });
  const times = new Times({ now: host.time.now(), zone: "UTC" });
  return describeApply(outcome, { before, begin, times }).map(plain);
}

test("apply says what the host is now, and how long it took", async () => {
  const host = new MemoryHost();
  host.publish({ sequence: 7, system: "2" });
  expect(await applied(host)).toEqual([
    expect.stringMatching(/^Applied release 7 of stable: switch \w{7}-web1-2, in 1 s$/),
  ]);
  expect(await applied(host)).toEqual(["Nothing to do: release 7 of stable is active."]);
});

test("apply says that it called off the boot into a release that was withdrawn", async () => {
  const host = await waitingHost(null);
  expect(await applied(host)).toEqual([
    "Nothing to do now: release 7 of stable waits for its boot.",
    expect.stringMatching(/^The next boot tries release 7: \w{7}-web1-2\.$/),
  ]);
  host.publish({ sequence: 8, system: "1" });
  expect(await applied(host)).toEqual([
    "The boot that release 7 waited for was called off; the boot default is what it was before it.",
    "Nothing to do: this host already is what release 8 of stable asks for.",
  ]);
  expect(host.bootDefault).toBe(system("1"));
});

test("apply says that what it applied takes a boot", async () => {
  const host = new MemoryHost();
  host.kernels.set(system("2"), "linux 2");
  host.publish({ sequence: 7, system: "2", mode: "boot" });
  expect((await applied(host)).at(-1)).toBe(
    "REBOOT NEEDED: it takes full effect only with a boot.",
  );
});
