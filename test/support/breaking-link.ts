import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { onTestFinished } from "vitest";

/** What a link does with each of its connections. Replaceable at any time. */
export interface LinkFaults {
  /** Bytes to the client after which a connection ends; asked for each connection. */
  readonly bytes?: (connection: number) => number;
  /** How it ends: by a reset, by a proper end, or in silence. `reset` if absent. */
  readonly end?: "reset" | "close" | "silence";
  /** Each piece to the client comes so much later. */
  readonly delayMs?: number;
}

/** A TCP proxy before a server, as bad as it is told to be. */
export interface BreakingLink {
  readonly url: string;
  faults: LinkFaults;
  /** Connections so far. */
  readonly connections: number;
  /** Of them, how many ended by the link's faults. */
  readonly broken: number;
  /** Called just before one of them ends so. */
  onBreak: () => void;
}

/** Puts a link in front of an HTTP server of this machine, until the test ends. */
export async function breakingLink(target: string, faults: LinkFaults = {}): Promise<BreakingLink> {
  const { port } = new URL(target);
  const open = new Set<Socket>();
  const link = { url: "", faults, connections: 0, broken: 0, onBreak: (): void => undefined };
  const server = createServer((client) => {
    link.connections += 1;
    const { bytes, end = "reset", delayMs = 0 } = link.faults;
    let left = bytes?.(link.connections) ?? Infinity;
    const upstream = connect(Number(port), "127.0.0.1");
    const ends = [client, upstream];
    for (const socket of ends) {
      open.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        open.delete(socket);
        if (!isSilent()) for (const other of ends) other.destroy();
      });
    }
    const isSilent = (): boolean => left === 0 && end === "silence";
    client.pipe(upstream);
    const pass = (piece: Buffer): void => {
      if (left === 0 || client.destroyed) return;
      const part = piece.subarray(0, left);
      left -= part.length;
      client.write(part, () => {
        if (left > 0) return;
        link.broken += 1;
        link.onBreak();
        if (end === "reset") client.resetAndDestroy();
        else if (end === "close") client.end();
      });
    };
    upstream.on("data", (piece) => {
      if (delayMs > 0) setTimeout(pass, delayMs, piece);
      else pass(piece);
    });
    // What was sent before the end comes before the end.
    upstream.on("end", () => setTimeout(() => !isSilent() && client.end(), delayMs));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  link.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  onTestFinished(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  return link;
}
