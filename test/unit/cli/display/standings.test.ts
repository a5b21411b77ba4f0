import { describe, expect, test } from "vitest";
import { describeCheck } from "../../../../agent/cli/display/check.ts";
import { describeHistory } from "../../../../agent/cli/display/history.ts";
import { render, type Screen } from "../../../../agent/cli/display/screen.ts";
import { describeStatus } from "../../../../agent/cli/display/status.ts";
import { Times } from "../../../../agent/core/text/times.ts";
import { check } from "../../../../agent/host/check.ts";
import { readStatus } from "../../../../agent/host/report/host-status.ts";
import { STANDINGS } from "../../../support/standings.ts";

const SCREEN: Screen = { columns: 100, colour: false };

describe("a person sees", () => {
  test("what matters first, of a host in each standing", async () => {
    const shown: string[] = [];
    for (const [name, make] of Object.entries(STANDINGS)) {
      const host = await make();
      const times = new Times({ now: host.time.now(), zone: "Europe/Berlin" });
      const status = render(describeStatus(await readStatus(host.tools), times, SCREEN), SCREEN);
      const history = describeHistory(host.history, { times, screen: SCREEN, all: false });
      shown.push(`=== ${name} ===`, "$ nixos-pull status", status, "");
      const found = await check(host.tools, { insistence: "patient", signal: undefined });
      const { alarms, result, beside } = describeCheck(found, times, host.settings.reboot.policy);
      shown.push(
        "$ nixos-pull check",
        render([...alarms, ...result, ...beside], SCREEN, { hang: 2 }),
        "",
      );
      shown.push("$ nixos-pull history", render(history, SCREEN), "");
    }
    await expect(shown.join("\n")).toMatchFileSnapshot("standings.txt");
  });
});
