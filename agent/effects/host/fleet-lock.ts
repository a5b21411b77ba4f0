import { request, type Dispatcher } from "undici";
import { PullError } from "../../core/errors.ts";
import type { RebootLock } from "../../core/ports.ts";
import { sanitize } from "../../core/text/sanitize.ts";
import { readBounded } from "../files/bounded-read.ts";

export interface FleetLockSettings {
  /** Base address of the server. */
  readonly url: string;
  /** Group whose slots are shared. */
  readonly group: string;
  /** Identity of this host within the group. */
  readonly id: string;
}

const TIMEOUT_MS = 30_000;

/** An answer has a kind and a sentence; a longer one is not looked at. */
const MAX_ANSWER_BYTES = 64 * 1024;

/**
 * Client of the FleetLock protocol, version 1: `pre-reboot` takes a slot (also again while holding
 * one), `steady-state` gives it back. Both are a POST of the client's group and id, and the answer
 * is 200 if they succeed. The calls throw REBOOT_REFUSED.
 */
export function fleetLock(
  settings: FleetLockSettings,
  dispatcher: () => Promise<Dispatcher>,
): RebootLock {
  const post = async (operation: string): Promise<void> => {
    const url = new URL(`v1/${operation}`, `${settings.url.replace(/\/*$/, "")}/`);
    const { group, id } = settings;
    let status: number;
    let text: string;
    try {
      const response = await request(url, {
        method: "POST",
        headers: { "fleet-lock-protocol": "true", "content-type": "application/json" },
        body: JSON.stringify({ client_params: { group, id } }),
        signal: AbortSignal.timeout(TIMEOUT_MS),
        dispatcher: await dispatcher(),
      });
      status = response.statusCode;
      const body = await readBounded(response.body as AsyncIterable<Buffer>, MAX_ANSWER_BYTES);
      text = sanitize((body ?? Buffer.alloc(0)).toString("utf8"), 500);
    } catch (cause) {
      throw new PullError("REBOOT_REFUSED", `${url.href}: ${(cause as Error).message}`, { cause });
    }
    if (status !== 200) {
      throw new PullError("REBOOT_REFUSED", `${url.href}: HTTP ${status}: ${text}`);
    }
  };
  return {
    take: () => post("pre-reboot"),
    release: () => post("steady-state"),
  };
}
