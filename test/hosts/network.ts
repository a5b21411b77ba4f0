import { createServer, connect, type Server, type Socket } from "node:net";
import { runProcess } from "../../agent/effects/process/subprocess.ts";
import { testEnvironment } from "../support/nixos-pull.ts";

/** The name that systemd-nspawn gives to a container's own interface too. */
const INNER_LINK = "host0";
const SUBNETS = 256;

/**
 * A network of one host and this machine: a namespace and a veth pair with the
 * addresses 10.77.N.1 (here) and 10.77.N.2 (the host).
 */
export interface PrivateNetwork {
  readonly outerAddress: string;
  /** With the prefix length. */
  readonly innerAddress: string;
  /** Takes the host's link down; no packet passes until `restore`. */
  cut(): Promise<void>;
  restore(): Promise<void>;
  /** An address at which the host reaches `url`, which is served on this machine. */
  reach(url: string): Promise<string>;
  close(): void;
}

export async function createPrivateNetwork(namespace: string): Promise<PrivateNetwork> {
  await ip("netns", "add", namespace);
  const subnet = await addLinks(namespace);
  const outerAddress = `10.77.${subnet}.1`;
  const innerAddress = `10.77.${subnet}.2/30`;
  const inside = (...args: string[]): Promise<void> => ip("-n", namespace, ...args);
  await ip("address", "add", `${outerAddress}/30`, "dev", outerLink(subnet));
  await ip("link", "set", outerLink(subnet), "up");
  await inside("link", "set", "lo", "up");
  await inside("address", "add", innerAddress, "dev", INNER_LINK);
  await inside("link", "set", INNER_LINK, "up");
  const relays = new Map<string, Relay>();
  return {
    outerAddress,
    innerAddress,
    cut: () => inside("link", "set", INNER_LINK, "down"),
    restore: () => inside("link", "set", INNER_LINK, "up"),
    async reach(url) {
      const { protocol, hostname, port, pathname } = new URL(url);
      const target = { host: hostname, port: Number(port) };
      const key = `${hostname}:${port}`;
      const relay = relays.get(key) ?? (await startRelay(outerAddress, target));
      relays.set(key, relay);
      return `${protocol}//${outerAddress}:${relay.port}${pathname === "/" ? "" : pathname}`;
    },
    close() {
      for (const relay of relays.values()) relay.close();
    },
  };
}

/** Takes the first number that nobody has: the kernel makes each link only once. */
async function addLinks(namespace: string): Promise<number> {
  for (let subnet = 0; subnet < SUBNETS; subnet++) {
    const peer = ["peer", "name", INNER_LINK, "netns", namespace];
    const result = await tryIp("link", "add", outerLink(subnet), "type", "veth", ...peer);
    if (result.exitCode === 0) return subnet;
    if (!result.stderr.includes("File exists")) throw new Error(result.stderr);
  }
  throw new Error(`all ${SUBNETS} test networks are taken`);
}

function outerLink(subnet: number): string {
  return `np77-${subnet}`;
}

interface Relay {
  readonly port: number;
  close(): void;
}

/** Passes connections on to a server that listens on this machine's loopback alone. */
async function startRelay(address: string, target: { host: string; port: number }): Promise<Relay> {
  const sockets = new Set<Socket>();
  const server: Server = createServer((inner) => {
    const outer = connect(target);
    for (const [socket, other] of [
      [inner, outer],
      [outer, inner],
    ] as const) {
      sockets.add(socket);
      socket.pipe(other);
      socket.on("error", () => other.destroy());
      socket.on("close", () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(0, address, resolve);
  });
  return {
    port: (server.address() as { port: number }).port,
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

function tryIp(...args: string[]): ReturnType<typeof runProcess> {
  return runProcess("ip", args, { env: testEnvironment(), timeoutMs: 10_000 });
}

async function ip(...args: string[]): Promise<void> {
  const result = await tryIp(...args);
  if (result.exitCode !== 0) throw new Error(`ip ${args.join(" ")}: ${result.stderr}`);
}
