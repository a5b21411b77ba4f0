import { lookup } from "node:dns/promises";
import { connect, type NetConnectOpts, type Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { buildConnector } from "undici";
import { PullError } from "../../core/errors.ts";

/** An address of a name. */
export interface Address {
  readonly address: string;
  readonly family: number;
}

/** RFC 8305, section 8, "Connection Attempt Delay". */
const ATTEMPT_DELAY_MS = 250;

/** As undici's own sockets: TCP has noticed a dead peer after this and a few probes. */
const KEEP_ALIVE_MS = 60_000;

/** How connections are made. */
export interface ConnectorOptions {
  /** Time for the whole connection: name, TCP and TLS, milliseconds. */
  readonly timeoutMs: number;
  /** For `tls.connect`. */
  readonly tls: object;
  /** Whether a connection may lead to this IP address; every one, if absent. */
  readonly permits?: ((address: string) => boolean) | undefined;
}

/**
 * Connects to servers for undici. A name may have several addresses: they are tried one after
 * the other, a quarter of a second apart, and the first that answers is used (RFC 8305). Node's
 * own way gives an address up after that quarter, so that over a satellite it reaches none. The
 * connector fails with MIRROR_REDIRECT if `permits` refuses every address of a name.
 */
export function connectorOf(options: ConnectorOptions): buildConnector.connector {
  const { timeoutMs, tls, permits = () => true } = options;
  // The time limit is below: it is for all parts of the connection together.
  const secure = buildConnector({ ...tls, timeout: 0 });
  return (target, callback) => {
    const late = new AbortController();
    const limit = setTimeout(() => {
      late.abort(new Error(`no connection within ${timeoutMs / 1000} s`));
    }, timeoutMs);
    openConnection(target, permits, secure, late.signal)
      .finally(() => {
        clearTimeout(limit);
      })
      .then(
        (socket) => {
          callback(null, socket);
        },
        (error: unknown) => {
          callback(error as Error, null);
        },
      );
  };
}

async function openConnection(
  target: buildConnector.Options,
  permits: (address: string) => boolean,
  secure: buildConnector.connector,
  signal: AbortSignal,
): Promise<Socket | TLSSocket> {
  const { hostname, protocol } = target;
  const port = Number(target.port || (protocol === "https:" ? 443 : 80));
  const addresses = await unlessAborted(lookup(hostname, { all: true }), signal);
  const permitted = addresses.filter(({ address }) => permits(address));
  if (permitted.length === 0) {
    throw new PullError(
      "MIRROR_REDIRECT",
      `refused the redirect to ${hostname}: it leads into a network that is not the mirror's`,
    );
  }
  const socket = await firstToConnect(permitted, port, signal);
  if (protocol !== "https:") return socket;
  const encrypted = new Promise<Socket | TLSSocket>((resolve, reject) => {
    secure({ ...target, httpSocket: socket }, (error, made) => {
      if (made) resolve(made);
      else reject(error);
    });
  });
  try {
    return await unlessAborted(encrypted, signal);
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

/** The promise's value, unless `signal` comes first: then its reason is thrown. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  let stop = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => {
      reject(signal.reason as Error);
    };
    signal.addEventListener("abort", stop);
    if (signal.aborted) stop();
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/**
 * The first of several addresses that accepts a connection. None is given up before `signal`
 * says so. Throws why there is no connection, for each address.
 */
export function firstToConnect(
  addresses: readonly Address[],
  port: number,
  signal: AbortSignal,
): Promise<Socket> {
  const order = alternating(addresses);
  return new Promise((resolve, reject) => {
    const open = new Set<Socket>();
    const errors: Error[] = [];
    let begun = 0;
    let delay: NodeJS.Timeout | undefined;
    const end = (winner: Socket | null): void => {
      clearTimeout(delay);
      signal.removeEventListener("abort", giveUp);
      for (const socket of open) if (socket !== winner) socket.destroy();
    };
    const fail = (): void => {
      end(null);
      const [only] = errors;
      reject(errors.length === 1 && only ? only : new AggregateError(errors, "no connection"));
    };
    const giveUp = (): void => {
      errors.push(signal.reason as Error);
      fail();
    };
    const beginNext = (): void => {
      clearTimeout(delay);
      const next = order[begun++];
      if (!next) return;
      if (begun < order.length) delay = setTimeout(beginNext, ATTEMPT_DELAY_MS);
      const socket = connect(connectionTo(next, port));
      socket.setNoDelay(true).setKeepAlive(true, KEEP_ALIVE_MS);
      open.add(socket);
      socket.once("connect", () => {
        end(socket);
        resolve(socket);
      });
      // It stays: an error may come before undici listens for it.
      socket.on("error", (error) => {
        if (!open.delete(socket)) return;
        errors.push(error);
        if (begun < order.length) beginNext();
        else if (open.size === 0) fail();
      });
    };
    signal.addEventListener("abort", giveUp);
    if (signal.aborted) giveUp();
    else beginNext();
  });
}

/** For `net.connect`. With undici's own buffer: large downloads come in fewer pieces. */
function connectionTo({ address: host }: Address, port: number): NetConnectOpts {
  const options: NetConnectOpts & { highWaterMark: number } = { host, port, highWaterMark: 65_536 };
  return options;
}

/** Both families in turn, beginning with that of the first address (RFC 8305, section 4). */
function alternating(addresses: readonly Address[]): Address[] {
  const first = addresses.filter(({ family }) => family === addresses[0]?.family);
  const others = addresses.filter(({ family }) => family !== addresses[0]?.family);
  const pairs = first.flatMap((address, at) => [address, ...others.slice(at, at + 1)]);
  return [...pairs, ...others.slice(first.length)];
}
