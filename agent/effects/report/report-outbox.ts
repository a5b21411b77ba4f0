import { request } from "undici";
import { PullError } from "../../core/errors.ts";
import type { ReportTarget } from "../../core/formats/pending-report.ts";
import type { Settings } from "../../core/settings.ts";
import { RootDirectory } from "../files/root-directory.ts";
import { networkError } from "../mirror/http-mirror.ts";
import { authorizationOf, type Transport } from "../mirror/transport.ts";

/** Time to deliver a report, which has about 2 kB. */
const PUT_TIMEOUT_MS = 30_000;

/** What a delivery takes. */
export interface Delivery {
  readonly settings: Pick<Settings, "hostname" | "reports" | "credentials">;
  readonly transport: Transport;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Delivers a report to one place that the settings name: as `HOSTNAME.json` into a directory, or
 * by PUT below an address. A redirect is not followed. Throws MIRROR_STATUS, MIRROR_UNREACHABLE, …,
 * UNSAFE_FILE, and the operating system's errors.
 */
export async function deliverReport(
  target: ReportTarget,
  envelope: string,
  delivery: Delivery,
): Promise<void> {
  const { settings } = delivery;
  const { directory, url } = settings.reports;
  const file = `${settings.hostname}.json`;
  if (target === "directory" && directory !== undefined) {
    // The directory is not made here: below the mount point of a stick that is not plugged in,
    // the report would lie on the host's own disk, and nobody would find it.
    await new RootDirectory(directory).writeFile(file, envelope);
  }
  if (target === "url" && url !== undefined) {
    const address = new URL(file, url.endsWith("/") ? url : `${url}/`);
    await put(address, envelope, delivery);
  }
}

async function put(
  target: URL,
  envelope: string,
  { settings, transport, signal }: Delivery,
): Promise<void> {
  // An inbox on a mirror's server has the mirror's credentials.
  const credential = Object.entries(settings.credentials).find(
    ([mirror]) => new URL(mirror).origin === target.origin,
  )?.[1];
  const timeout = AbortSignal.timeout(PUT_TIMEOUT_MS);
  try {
    const { statusCode, body } = await request(target, {
      method: "PUT",
      headers: {
        "content-type": "application/json",
        "user-agent": "nixos-pull",
        ...(credential && { authorization: await authorizationOf(credential) }),
      },
      body: envelope,
      dispatcher: await transport.dispatcher({ identified: true }),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    await body.dump({ limit: 16 * 1024 }).catch(() => undefined);
    if (statusCode < 200 || statusCode > 299) {
      throw new PullError(
        "MIRROR_STATUS",
        `${target.href}: expected HTTP 2xx for the report, found ${statusCode}`,
      );
    }
  } catch (cause) {
    if (timeout.aborted) {
      throw new PullError(
        "MIRROR_STALLED",
        `${target.href}: the server did not take the report within ${PUT_TIMEOUT_MS / 1000} s`,
        {
          cause,
        },
      );
    }
    throw networkError(target, cause, signal);
  }
}
