import { execFileSync } from "node:child_process";
import { readFile, stat } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer, type ServerOptions } from "node:https";
import { connect, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";

/** Answers a request itself and gives true, or false to have the file served. */
export type Behaviour = (request: IncomingMessage, response: ServerResponse) => boolean;

/** A real server over a mirror's directory that can be made to misbehave. */
export interface HostileServer {
  readonly url: string;
  /** Every request that came, with its headers. */
  readonly requests: { readonly path: string; readonly headers: IncomingMessage["headers"] }[];
  behave: Behaviour;
  close(): void;
}

/** Starts on port 0 of loopback; with TLS options over HTTPS. */
export async function startServer(
  directory: string,
  behave: Behaviour = () => false,
  tls?: ServerOptions,
): Promise<HostileServer> {
  const requests: HostileServer["requests"] = [];
  const served = { url: "", requests, behave, close: () => undefined } as {
    -readonly [Key in keyof HostileServer]: HostileServer[Key];
  };
  const answer = (request: IncomingMessage, response: ServerResponse): void => {
    requests.push({ path: request.url ?? "", headers: request.headers });
    if (served.behave(request, response)) return;
    void serveFile(
      join(directory, new URL(request.url ?? "/", "http://it").pathname),
      request,
      response,
    );
  };
  const server: Server = tls ? createTlsServer(tls, answer) : createServer(answer);
  server.on("tlsClientError", () => undefined);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  served.url = tls ? `https://localhost:${port}` : `http://127.0.0.1:${port}`;
  served.close = () => {
    server.closeAllConnections();
    server.close();
  };
  return served;
}

async function serveFile(
  path: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const found = await stat(path).catch(() => null);
  if (!found?.isFile()) {
    response.writeHead(404).end("not found");
    return;
  }
  const bytes = await readFile(path);
  const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
  if (!range) {
    response.writeHead(200, { "content-length": bytes.length }).end(bytes);
    return;
  }
  const from = Number(range[1]);
  const part = bytes.subarray(from, Number(range[2]) + 1);
  if (part.length === 0) {
    response.writeHead(416).end();
    return;
  }
  const to = from + part.length - 1;
  response.writeHead(206, { "content-range": `bytes ${from}-${to}/${bytes.length}` }).end(part);
}

/** A forwarding proxy (CONNECT, and plain requests refused); counts its tunnels. */
export async function startProxy(): Promise<{ url: string; tunnels: string[]; close(): void }> {
  const tunnels: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((_, response) => response.writeHead(400).end());
  server.on("connect", (request, client: Socket) => {
    tunnels.push(request.url ?? "");
    const upstream = connect(Number((request.url ?? "").split(":")[1]), "127.0.0.1", () => {
      client.write("HTTP/1.1 200 Connection established\r\n\r\n");
      upstream.pipe(client).pipe(upstream);
    });
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => socket.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    tunnels,
    close: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

/** Certificates made by openssl: an authority, a server's and a client's, as PEM files. */
export interface Certificates {
  readonly ca: string;
  readonly server: { readonly cert: string; readonly key: string };
  readonly client: { readonly cert: string; readonly key: string };
}

export function makeCertificates(directory: string, authority: string): Certificates {
  const path = (name: string): string => join(directory, `${authority}-${name}.pem`);
  const openssl = (...args: string[]): void => {
    execFileSync("openssl", args, { stdio: "ignore", cwd: directory });
  };
  const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  const subject = (name: string): string[] => ["-subj", `/CN=${name}`];
  openssl(
    ...["req", "-x509", ...ec, "-keyout", path("ca-key"), "-out", path("ca"), "-days", "30"],
    ...subject(authority),
  );
  for (const name of ["server", "client"]) {
    openssl(
      ...["req", "-x509", ...ec, "-keyout", path(`${name}-key`), "-out", path(name)],
      ...["-CA", path("ca"), "-CAkey", path("ca-key"), "-days", "30", ...subject("localhost")],
      ...[
        "-addext",
        "subjectAltName=DNS:localhost",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
      ],
    );
  }
  return {
    ca: path("ca"),
    server: { cert: path("server"), key: path("server-key") },
    client: { cert: path("client"), key: path("client-key") },
  };
}
