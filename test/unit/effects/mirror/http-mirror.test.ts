import { execFileSync } from "node:child_process";
import { mkdir, readFile, utimes, writeFile } from "node:fs/promises";
import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from "node:http";
import { createServer as createTlsServer } from "node:https";
import { connect, createServer as createRawServer, type AddressInfo, type Server } from "node:net";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import type { ManifestRead } from "../../../../agent/core/ports.ts";
import type { Settings } from "../../../../agent/core/settings.ts";
import { HttpMirror, networkError } from "../../../../agent/effects/mirror/http-mirror.ts";
import { Pacer } from "../../../../agent/effects/mirror/transfer-rate.ts";
import { Transport } from "../../../../agent/effects/mirror/transport.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { serveMirror } from "../../../support/mirror-server.ts";
import { sampleDigest } from "../../../support/sample-release.ts";
import { sampleLimits } from "../../../support/sample-settings.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const SHA256 = sampleDigest("archive");
const MANIFEST = "/channels/stable/manifest.json";
const ARCHIVE = `/archives/${SHA256}.tar`;

/** Listens on a free port until the test ends; gives the port. */
async function listen(server: Server): Promise<number> {
  const sockets = new Set<Duplex>();
  server.on("connection", (socket) => sockets.add(socket));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

async function serve(listener: RequestListener): Promise<string> {
  return `http://127.0.0.1:${await listen(createServer(listener))}`;
}

function mirrorAt(
  address: string,
  some: Partial<Settings["limits"]> = {},
  tls: Settings["tls"] = {},
): HttpMirror {
  const limits = sampleLimits({ stallTimeout: 60_000, connectTimeout: 60_000, ...some });
  const transport = new Transport({ limits, tls });
  onTestFinished(() => transport.close());
  return new HttpMirror(address, { limits, transport, pacer: new Pacer(limits.maxRate) });
}

function manifestOf(mirror: HttpMirror, signal?: AbortSignal): Promise<ManifestRead> {
  return mirror.readManifest("stable", { signal });
}

async function read(mirror: HttpMirror, from: number, to: number, signal?: AbortSignal) {
  const pieces: Buffer[] = [];
  for await (const piece of mirror.readArchive(SHA256, { from, to }, signal)) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** Rejects where `promise` takes longer: a hang is a failure of its own. */
async function soon<T>(promise: Promise<T>): Promise<T> {
  const late = new AbortController();
  const limit = sleep(60_000, undefined, { signal: late.signal }).then(() => {
    throw new Error("it hangs");
  });
  limit.catch(() => undefined);
  try {
    return await Promise.race([promise, limit]);
  } finally {
    late.abort();
  }
}

/** A mirror directory behind a real static server. */
async function staticMirror(contents = "0123456789".repeat(100)) {
  const directory = await temporaryDirectory();
  await mkdir(join(directory, "channels/stable"), { recursive: true });
  await mkdir(join(directory, "archives"));
  const manifest = join(directory, MANIFEST);
  await writeFile(manifest, '{"some":"json"}');
  await writeFile(join(directory, ARCHIVE), contents);
  const server = await serveMirror(directory);
  return { server, manifest, mirror: mirrorAt(server.url) };
}

describe("a manifest", () => {
  test("is read with what the next conditional request needs", async () => {
    const url = await serve((_, response) => {
      response.writeHead(200, { etag: '"a"', "last-modified": "Sat, 31 Jan 2026 12:00:00 GMT" });
      response.end("{}");
    });
    expect(await manifestOf(mirrorAt(url))).toEqual({
      kind: "read",
      bytes: Buffer.from("{}"),
      validators: { etag: '"a"', lastModified: "Sat, 31 Jan 2026 12:00:00 GMT" },
    });
  });

  test("that did not change since costs a 304, and one that did is read again", async () => {
    const { mirror, manifest, server } = await staticMirror();
    const first = await manifestOf(mirror);
    if (first.kind !== "read") throw new Error("expected a manifest");
    const { validators } = first;
    expect(await mirror.readManifest("stable", { validators })).toEqual({ kind: "unchanged" });
    await writeFile(manifest, '{"other":"json"}');
    await utimes(manifest, 1, 1);
    const changed = await mirror.readManifest("stable", { validators });
    expect(changed).toMatchObject({ kind: "read", bytes: Buffer.from('{"other":"json"}') });
    expect(server.requests.map(({ status }) => status)).toEqual([200, 304, 200]);
  });

  test("is asked for by ETag, by date, or by both, as they are known", async () => {
    const seen: unknown[] = [];
    const url = await serve((request, response) => {
      seen.push([request.headers["if-none-match"], request.headers["if-modified-since"]]);
      response.writeHead(304).end();
    });
    const mirror = mirrorAt(url);
    const [etag, lastModified] = ['W/"a"', "Sat, 31 Jan 2026 12:00:00 GMT"];
    for (const validators of [{ etag }, { lastModified }, { etag, lastModified }]) {
      expect(await mirror.readManifest("stable", { validators })).toEqual({ kind: "unchanged" });
    }
    expect(seen).toEqual([
      [etag, undefined],
      [undefined, lastModified],
      [etag, lastModified],
    ]);
  });

  test.each(["", "/", "/below/this", "/below/this/"])(
    "lies below the address …%s",
    async (path) => {
      const seen: unknown[] = [];
      const url = await serve((request, response) => {
        seen.push([request.method, request.url, request.headers["user-agent"]]);
        response.end("{}");
      });
      const mirror = mirrorAt(url + path);
      expect(mirror.address).toBe(url + path);
      await manifestOf(mirror);
      expect(seen).toEqual([["GET", path.replace(/\/$/, "") + MANIFEST, "nixos-pull"]]);
    },
  );
});

describe("an unexpected status", () => {
  test.each([
    [404, "MIRROR_NOT_FOUND"],
    [410, "MIRROR_NOT_FOUND"],
    [204, "MIRROR_STATUS"],
    [401, "MIRROR_STATUS"],
    [403, "MIRROR_STATUS"],
    [429, "MIRROR_STATUS"],
    [500, "MIRROR_STATUS"],
    [503, "MIRROR_STATUS"],
  ])("%i is %s, for manifests and archives", async (status, code) => {
    const url = await serve((_, response) => {
      response.writeHead(status, { "content-type": "text/html" });
      response.end(status === 204 ? undefined : "<html>an error page</html>".repeat(2_000));
    });
    const mirror = mirrorAt(url);
    for (const attempt of [() => manifestOf(mirror), () => read(mirror, 0, 10)]) {
      const failure = await rejectionOf(soon<unknown>(attempt()));
      expect(failure.code).toBe(code);
      expect(failure.message).toContain(`found ${status}`);
      expect(failure.message).toContain(url);
      expect(failure.transient).toBe(true);
    }
  });

  test("206 is none for a manifest, which is not asked for in parts at first", async () => {
    const url = await serve((_, response) => response.writeHead(206).end("{"));
    expect((await rejectionOf(manifestOf(mirrorAt(url)))).code).toBe("MIRROR_STATUS");
  });

  test("leaves the connection fit for later requests", async () => {
    let connections = 0;
    const server = createServer((request, response) => {
      response.writeHead(request.url === ARCHIVE ? 404 : 200).end("{}");
    });
    server.on("connection", () => connections++);
    const mirror = mirrorAt(`http://127.0.0.1:${await listen(server)}`);
    for (let round = 0; round < 4; round++) {
      await rejectionOf(read(mirror, 0, 10));
      await manifestOf(mirror);
    }
    // A connection may take a moment to be idle again.
    expect(connections).toBeLessThanOrEqual(2);
  });

  test("an HTML page with status 200 is given as it is: the envelope's reader names it", async () => {
    const url = await serve((_, response) => response.end("<html>Please log in</html>"));
    const answer = await manifestOf(mirrorAt(url));
    expect(answer).toMatchObject({ bytes: Buffer.from("<html>Please log in</html>") });
  });
});

describe("redirects", () => {
  /** Redirects `hops` times, then gives the file. */
  async function redirecting(hops: number, status = 302): Promise<string> {
    return serve((request, response) => {
      const at = Number(new URL(request.url ?? "/", "http://x").searchParams.get("hop") ?? 0);
      if (at >= hops) response.end("{}");
      else response.writeHead(status, { location: `/elsewhere?hop=${at + 1}` }).end("moved");
    });
  }

  test.each([301, 302, 303, 307, 308])("by %i are followed", async (status) => {
    expect((await manifestOf(mirrorAt(await redirecting(1, status)))).kind).toBe("read");
  });

  test("are followed as often as the limit says and no further", async () => {
    const limits = { redirects: 3 };
    expect((await manifestOf(mirrorAt(await redirecting(3), limits))).kind).toBe("read");
    const failure = await rejectionOf(manifestOf(mirrorAt(await redirecting(4), limits)));
    expect(failure.code).toBe("MIRROR_REDIRECT");
    expect(failure.message).toContain("expected at most 3 redirects");
  });

  test("in a circle come to an end", async () => {
    let requests = 0;
    const url = await serve((request, response) => {
      requests++;
      response.writeHead(302, { location: request.url }).end();
    });
    expect((await rejectionOf(manifestOf(mirrorAt(url)))).code).toBe("MIRROR_REDIRECT");
    expect(requests).toBe(6);
  });

  test("are not followed at all with a limit of zero", async () => {
    const failure = await rejectionOf(manifestOf(mirrorAt(await redirecting(1), { redirects: 0 })));
    expect(failure.code).toBe("MIRROR_REDIRECT");
  });

  test("keep the range and lead to other servers", async () => {
    const { server } = await staticMirror();
    const url = await serve((request, response) => {
      response.writeHead(307, { location: server.url + (request.url ?? "") }).end();
    });
    expect((await read(mirrorAt(url), 15, 25)).toString()).toBe("5678901234");
  });

  test.each([undefined, "", "http://", "http://[", "//"])(
    "to %j lead nowhere",
    async (location) => {
      const url = await serve((_, response) => {
        response.writeHead(302, location === undefined ? {} : { location }).end();
      });
      expect((await rejectionOf(manifestOf(mirrorAt(url)))).code).toBe("MIRROR_REDIRECT");
    },
  );

  test.each(["file:///etc/passwd", "ftp://x/y", "data:,{}", "javascript:0"])(
    "to %s are refused",
    async (location) => {
      const url = await serve((_, response) => response.writeHead(302, { location }).end());
      const failure = await rejectionOf(manifestOf(mirrorAt(url)));
      expect(failure.code).toBe("MIRROR_REDIRECT");
      expect(failure.message).toContain("refused the redirect to");
    },
  );

  test.each([
    "http://10.1.2.3/",
    "http://192.168.1.1:8080/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fe80::1]/",
    "http://[::ffff:10.0.0.1]/",
    "https://[fd00::1]/",
  ])("to %s are refused unless the mirror is there too", async (location) => {
    const url = await serve((_, response) => response.writeHead(302, { location }).end());
    const failure = await rejectionOf(manifestOf(mirrorAt(url)));
    expect(failure.code).toBe("MIRROR_REDIRECT");
    expect(failure.message).toContain("it leads into a network that is not the mirror's");
  });

  test("from https lead to https and never to http", async () => {
    const directory = await temporaryDirectory();
    const [key, cert] = [join(directory, "key.pem"), join(directory, "cert.pem")];
    execFileSync(
      "openssl",
      [
        ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
        ...["-keyout", key, "-out", cert, "-days", "1", "-subj", "/CN=localhost"],
        ...["-addext", "subjectAltName=IP:127.0.0.1"],
      ],
      { stdio: "ignore" },
    );
    const plain = await serve((_, response) => response.end('{"from":"plain"}'));
    const ca = await readFile(cert, "utf8");
    const options = { key: await readFile(key), cert: ca };
    const server = createTlsServer(options, (request, response) => {
      if (request.url === "/moved/channels/stable/manifest.json") {
        response.writeHead(302, { location: MANIFEST }).end();
      } else if (request.url === "/weaker/channels/stable/manifest.json") {
        response.writeHead(302, { location: plain }).end();
      } else {
        response.end("{}");
      }
    });
    const url = `https://127.0.0.1:${await listen(server)}`;
    const trusting = (path: string) => mirrorAt(url + path, {}, { caFile: cert });
    expect((await manifestOf(trusting("/moved"))).kind).toBe("read");
    const failure = await rejectionOf(manifestOf(trusting("/weaker")));
    expect(failure.code).toBe("MIRROR_REDIRECT");
    expect(failure.message).toContain(`refused the redirect to http://`);
    // A certificate that nobody vouches for is no connection.
    expect((await rejectionOf(manifestOf(mirrorAt(url)))).code).toBe("MIRROR_TLS");
  });
});

test.each([
  ["CERT_HAS_EXPIRED", "certificate has expired", true],
  ["CERT_NOT_YET_VALID", "certificate is not yet valid", true],
  ["SELF_SIGNED_CERT_IN_CHAIN", "self-signed certificate in certificate chain", false],
])(
  "a certificate refused with %s names this host's clock if that may be why",
  (code, text, named) => {
    const cause = Object.assign(new Error(text), { code });
    const error = networkError(new URL("https://mirror.example/x"), cause, undefined);
    expect(error.code).toBe("MIRROR_TLS");
    expect(/; this host's clock says 20\S*Z: is it right\?$/.test(error.message)).toBe(named);
  },
);

describe("a body that is too long", () => {
  const limits = { manifestBytes: 100_000 };

  test.each([
    ["with its length announced", { "content-length": 100_001 }],
    ["in chunks without a length", {}],
  ])("is refused %s", async (_, headers) => {
    const url = await serve((_request, response) => {
      response.writeHead(200, headers);
      response.write(Buffer.alloc(60_000));
      response.end(Buffer.alloc(40_001));
    });
    const failure = await rejectionOf(soon(manifestOf(mirrorAt(url, limits))));
    expect(failure.code).toBe("MIRROR_OVERSIZE");
    expect(failure.message).toContain("expected at most 100000 bytes");
  });

  test("is taken when it has exactly the limit's length", async () => {
    const url = await serve((_, response) => response.end(Buffer.alloc(100_000)));
    expect(await manifestOf(mirrorAt(url, limits))).toMatchObject({ kind: "read" });
  });

  test("is refused though it never ends, and read no further", async () => {
    let sent = 0;
    const url = await serve((_, response) => {
      const more = (): void => {
        while (!response.destroyed && sent < 1e9) {
          sent += 65_536;
          if (!response.write(Buffer.alloc(65_536))) return void response.once("drain", more);
        }
      };
      more();
    });
    const failure = await rejectionOf(soon(manifestOf(mirrorAt(url, limits))));
    expect(failure.code).toBe("MIRROR_OVERSIZE");
    expect(sent).toBeLessThan(50_000_000);
  });

  test.each([
    ["with its length announced", { "content-length": 200 }],
    ["in chunks without a length", {}],
  ])("is refused also where the limit is small, %s", async (_, headers) => {
    const url = await serve((_request, response) => {
      response.writeHead(200, headers);
      response.end(Buffer.alloc(200));
    });
    const failure = await rejectionOf(soon(manifestOf(mirrorAt(url, { manifestBytes: 100 }))));
    expect(failure.code).toBe("MIRROR_OVERSIZE");
  });

  test("of headers is refused", async () => {
    const url = await serve((_, response) => {
      response.writeHead(200, { "x-long": "x".repeat(40_000) }).end("{}");
    });
    expect((await rejectionOf(manifestOf(mirrorAt(url)))).code).toBe("MIRROR_UNREACHABLE");
  });
});

describe("a mirror that stops sending", () => {
  const limits = { stallTimeout: 300 };
  /** For a mirror that is not to be given up: no pause on a busy machine is as long as this. */
  const patient = { stallTimeout: 2_000 };

  test.each<[string, (response: ServerResponse) => void]>([
    ["before it answers", () => undefined],
    [
      "after its headers",
      (response) => {
        response.writeHead(200).flushHeaders();
      },
    ],
    ["in the middle", (response) => void response.writeHead(206, ranged(0, 9, 10)).write("01234")],
  ])("%s is given up after the stall limit", async (_, answer) => {
    let requests = 0;
    const url = await serve((_request, response) => {
      // The rest is asked for over another connection, and does not come either.
      if (requests++ === 0) answer(response);
    });
    const started = performance.now();
    const failure = await rejectionOf(soon(read(mirrorAt(url, limits), 0, 10)));
    expect(failure.code).toBe("MIRROR_STALLED");
    expect(failure.message).toContain("stopped sending");
    expect(performance.now() - started).toBeGreaterThan(250);
  });

  test("with an error page is given up as well", async () => {
    const url = await serve((_, response) => {
      response.writeHead(500, { "content-length": 1_000 }).write("slow");
    });
    expect((await rejectionOf(soon(manifestOf(mirrorAt(url, patient))))).code).toBe(
      "MIRROR_STATUS",
    );
  });

  const unwanted: [string, (response: ServerResponse) => void][] = [
    ["not found", (response) => response.writeHead(404)],
    ["in trouble", (response) => response.writeHead(500)],
    ["moved to nowhere", (response) => response.writeHead(302)],
    ["out of range", (response) => response.writeHead(416)],
    ["of another range", (response) => response.writeHead(206, ranged(0, 999_999, 1_000_000))],
  ];

  test.each(unwanted)("by an answer %s in drips costs a moment", async (_, begin) => {
    const url = await serve((_request, response) => {
      begin(response);
      const timer = setInterval(() => response.write("x"), 50);
      response.on("close", () => {
        clearInterval(timer);
      });
    });
    const started = performance.now();
    await rejectionOf(soon(read(mirrorAt(url), 15, 25)));
    expect(performance.now() - started).toBeLessThan(20_000);
  });

  test("by interim answers without end is given up", async () => {
    const url = await serve((_, response) => {
      const timer = setInterval(() => {
        response.writeEarlyHints({ link: "</x>; rel=preload" });
      }, 50);
      response.on("close", () => {
        clearInterval(timer);
      });
    });
    const impatient = { stallTimeout: 300, connectTimeout: 200 };
    const failure = await rejectionOf(soon(manifestOf(mirrorAt(url, impatient))));
    expect(failure.code).toBe("MIRROR_STALLED");
    expect(failure.message).toContain("expected an answer within 0.7 s, found none");
  });

  /** Sends `part` every 100 ms, so many times. */
  const dripping = (part: string, times: number): Promise<string> =>
    serve((_, response) => {
      void (async () => {
        for (let round = 0; round < times && !response.destroyed; round++) {
          response.write(part);
          await sleep(100);
        }
        response.end();
      })();
    });

  test("and goes on, again and again, is not given up: the limit is for silence", async () => {
    const times = patient.stallTimeout / 100 + 5;
    const answer = await manifestOf(mirrorAt(await dripping("x".repeat(100), times), patient));
    expect(answer).toMatchObject({ bytes: Buffer.from("x".repeat(100 * times)) });
  });

  test("but for a byte now and then is given up: no download would ever end", async () => {
    const url = await dripping("x", Infinity);
    const mirror = mirrorAt(url, { minRate: 512, rateWindow: 300 });
    const failure = await rejectionOf(soon(manifestOf(mirror)));
    expect(failure.code).toBe("MIRROR_SLOW");
    expect(failure.message).toContain("expected at least 512 bytes a second over 0.3 s, found ");
    expect((await rejectionOf(soon(read(mirror, 0, 1_000)))).code).toBe("MIRROR_SLOW");
  });

  test("is not blamed for the time that the reader takes for itself", async () => {
    const url = await serve((_, response) => {
      response.writeHead(206, ranged(0, 9, 10)).write("01234");
      setTimeout(() => response.end("56789"), 50);
    });
    const pieces: string[] = [];
    for await (const piece of mirrorAt(url, patient).readArchive(SHA256, { from: 0, to: 10 })) {
      pieces.push(piece.toString());
      if (pieces.length === 1) await sleep(patient.stallTimeout + 500);
    }
    expect(pieces.join("")).toBe("0123456789");
  });
});

describe("no connection", () => {
  test("where nobody listens is MIRROR_UNREACHABLE, with the reason", async () => {
    const server = createRawServer();
    const port = await listen(server);
    await new Promise((resolve) => server.close(resolve));
    const failure = await rejectionOf(manifestOf(mirrorAt(`http://127.0.0.1:${port}`)));
    expect(failure.code).toBe("MIRROR_UNREACHABLE");
    expect(failure.message).toContain("ECONNREFUSED");
    expect(failure.cause).toBeInstanceOf(Error);
  });

  test("to a name that does not exist is MIRROR_UNREACHABLE", async () => {
    const failure = await rejectionOf(soon(manifestOf(mirrorAt("http://mirror.invalid"))));
    expect(failure.code).toBe("MIRROR_UNREACHABLE");
  });

  test.each([
    ["that is closed at once", ""],
    ["to something that speaks no HTTP", "SSH-2.0-OpenSSH_9.2\r\n"],
    ["that is closed within the headers", "HTTP/1.1 200 OK\r\ncontent-le"],
    ["that is closed within the body", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234"],
    [
      "that is closed within a chunk",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\n01",
    ],
    ["with a length that is no number", "HTTP/1.1 200 OK\r\ncontent-length: ten\r\n\r\n0123456789"],
    ["with two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}"],
  ])("%s is MIRROR_UNREACHABLE", async (_, bytes) => {
    const server = createRawServer((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", () => socket.end(bytes));
    });
    const url = `http://127.0.0.1:${await listen(server)}`;
    expect((await rejectionOf(soon(manifestOf(mirrorAt(url))))).code).toBe("MIRROR_UNREACHABLE");
    expect((await rejectionOf(soon(read(mirrorAt(url), 0, 10)))).code).toBe("MIRROR_UNREACHABLE");
  });

  test("that breaks within an archive still gave what came before", async () => {
    let requests = 0;
    const url = await serve((_, response) => {
      if (requests++ > 0) response.destroy();
      else response.writeHead(206, ranged(0, 99, 100)).write("01234", () => response.destroy());
    });
    const pieces: string[] = [];
    const failure = await rejectionOf(
      (async () => {
        for await (const piece of mirrorAt(url).readArchive(SHA256, { from: 0, to: 100 })) {
          pieces.push(piece.toString());
        }
      })(),
    );
    expect(failure.code).toBe("MIRROR_UNREACHABLE");
    expect(pieces.join("")).toBe("01234");
  });
});

function ranged(first: number, last: number, size: number): Record<string, string | number> {
  return {
    "content-length": last - first + 1,
    "content-range": `bytes ${first}-${last}/${size}`,
  };
}

describe("a range of an archive", () => {
  test("is what is asked for and given", async () => {
    const { mirror, server } = await staticMirror();
    expect((await read(mirror, 15, 25)).toString()).toBe("5678901234");
    expect(server.requests).toMatchObject([{ path: ARCHIVE, range: "bytes=15-24", status: 206 }]);
    expect(mirror.ranges).toBe(true);
  });

  test("from a server that knows none is cut out of the whole, and remembered", async () => {
    const { mirror, server } = await staticMirror();
    server.ranges = false;
    expect((await read(mirror, 15, 25)).toString()).toBe("5678901234");
    expect(mirror.ranges).toBe(false);
  });

  test("from the start of a server that knows none says that it knows none", async () => {
    const { mirror, server } = await staticMirror();
    server.ranges = false;
    expect((await read(mirror, 0, 10)).toString()).toBe("0123456789");
    expect(mirror.ranges).toBe(false);
  });

  test("is cut out across the pieces in which it comes", async () => {
    const url = await serve((_, response) => {
      void (async () => {
        for (const part of ["012", "345", "678", "9ab"]) {
          response.write(part);
          await sleep(20);
        }
        response.end();
      })();
    });
    expect((await read(mirrorAt(url), 4, 8)).toString()).toBe("4567");
  });

  test("ends the request as soon as it is complete", async () => {
    let closed: (() => void) | undefined;
    const ended = new Promise<void>((resolve) => (closed = resolve));
    const url = await serve((_, response) => {
      response.once("close", () => closed?.());
      response.writeHead(200).write("0123456789");
    });
    expect((await read(mirrorAt(url), 2, 6)).toString()).toBe("2345");
    await soon(ended);
  });

  test.each(["bytes 0-9/10", "bytes 16-25/1000", "bytes 1-9/10", "bytes */1000", "15-24", ""])(
    "that the server calls %j is refused",
    async (contentRange) => {
      const url = await serve((_, response) => {
        response.writeHead(206, { "content-range": contentRange }).end("0123456789");
      });
      const failure = await rejectionOf(soon(read(mirrorAt(url), 15, 25)));
      expect(failure.code).toBe("MIRROR_STATUS");
      expect(failure.message).toContain('expected content range "bytes 15-…"');
      expect(failure.message).toContain(JSON.stringify(contentRange));
    },
  );

  test("without the server's word for it is refused", async () => {
    const url = await serve((_, response) => response.writeHead(206).end("0123456789"));
    expect((await rejectionOf(read(mirrorAt(url), 15, 25))).code).toBe("MIRROR_STATUS");
  });

  test("in several parts at once is refused", async () => {
    const url = await serve((_, response) => {
      const type = "multipart/byteranges; boundary=x";
      response.writeHead(206, { "content-type": type }).end("--x\r\n\r\n0123\r\n--x--");
    });
    expect((await rejectionOf(read(mirrorAt(url), 15, 25))).code).toBe("MIRROR_STATUS");
  });

  test("beyond the end is a truncated archive", async () => {
    const { mirror } = await staticMirror();
    const failure = await rejectionOf(read(mirror, 1_000, 1_010));
    expect(failure.code).toBe("ARCHIVE_TRUNCATED");
    expect(failure.message).toContain("expected bytes up to 1010");
  });

  test("that reaches beyond the end ends early; its reader finds out", async () => {
    const { mirror } = await staticMirror();
    expect((await read(mirror, 990, 1_010)).toString()).toBe("0123456789");
  });

  test("is never longer than what was asked for", async () => {
    const url = await serve((_, response) => {
      response.writeHead(206, { "content-range": "bytes 5-99/100" }).end("5678901234567890");
    });
    expect((await read(mirrorAt(url), 5, 10)).toString()).toBe("56789");
  });
});

/**
 * A server that answers each request and then closes, as python's http.server and nginx with
 * `keepalive_timeout 0` do. It sends `body` after `delay` milliseconds, so that the end of the
 * connection meets a reader that is busy with what came before.
 */
function closingServer(body: Buffer, { delay, isFramed }: { delay: number; isFramed: boolean }) {
  return createRawServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => {
      const length = isFramed ? `Content-Length: ${body.length}\r\n` : "";
      socket.write(`HTTP/1.1 200 OK\r\n${length}Connection: close\r\n\r\n`);
      setTimeout(() => {
        socket.end(body);
      }, delay);
    });
  });
}

describe("a server that closes the connection while the reader is slow", () => {
  // undici 7.26 to 7.30 end the process with an assertion here, and so does 6.29.
  const sizes = [1, 65_535, 65_536, 65_537, 131_072, 131_073, 262_144, 1_048_576];
  const cases = sizes.flatMap((size) =>
    [true, false].flatMap((isFramed) => [0, 20].map((delay) => ({ size, isFramed, delay }))),
  );

  test.each(cases)("$size bytes, framed: $isFramed, after $delay ms", async (answer) => {
    const body = Buffer.alloc(answer.size, "nixos-pull");
    const port = await listen(closingServer(body, answer));
    const mirror = mirrorAt(`http://127.0.0.1:${port}`);
    const pieces: Buffer[] = [];
    for await (const piece of mirror.readArchive(SHA256, { from: 0, to: answer.size })) {
      pieces.push(piece);
      await sleep(5);
    }
    expect(Buffer.concat(pieces).equals(body)).toBe(true);
  });
});

describe("an abort", () => {
  test("before the request is INTERRUPTED", async () => {
    const { mirror } = await staticMirror();
    expect((await rejectionOf(manifestOf(mirror, AbortSignal.abort()))).code).toBe("INTERRUPTED");
  });

  test.each([
    ["while it waits for an answer", false],
    ["in the middle of a body", true],
  ])("%s is INTERRUPTED at once", async (_, begun) => {
    const abort = new AbortController();
    const url = await serve((_request, response) => {
      if (begun) response.writeHead(200).write("01");
      setTimeout(() => {
        abort.abort();
      }, 50);
    });
    const mirror = mirrorAt(url);
    expect((await rejectionOf(soon(read(mirror, 0, 10, abort.signal)))).code).toBe("INTERRUPTED");
  });
});

describe("a proxy from the environment", () => {
  /** A tiny proxy: CONNECT, and absolute addresses. */
  async function startProxy() {
    const asked: string[] = [];
    const server = createServer((request: IncomingMessage, response) => {
      asked.push(`${request.method} ${request.url}`);
      const { headers } = request;
      const upstream = httpRequest(request.url ?? "", { headers }, (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      });
      upstream.end();
    });
    server.on("connect", (request: IncomingMessage, socket: Duplex) => {
      asked.push(`CONNECT ${request.url}`);
      const [host, port] = (request.url ?? "").split(":");
      const upstream = connect(Number(port), host, () => {
        socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
        upstream.pipe(socket).pipe(upstream);
      });
      upstream.on("error", () => socket.destroy());
      socket.on("error", () => upstream.destroy());
      onTestFinished(() => void upstream.destroy());
    });
    return { url: `http://127.0.0.1:${await listen(server)}`, asked };
  }

  function setEnvironment(variables: Record<string, string>): void {
    for (const name of ["http_proxy", "https_proxy", "no_proxy"]) {
      vi.stubEnv(name, undefined);
      vi.stubEnv(name.toUpperCase(), undefined);
    }
    for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);
    onTestFinished(() => void vi.unstubAllEnvs());
  }

  test.each(["http_proxy", "HTTP_PROXY"])("by %s is asked for the mirror's files", async (name) => {
    const proxy = await startProxy();
    setEnvironment({ [name]: proxy.url });
    const { mirror, server } = await staticMirror();
    expect((await manifestOf(mirror)).kind).toBe("read");
    expect((await read(mirror, 15, 25)).toString()).toBe("5678901234");
    expect(proxy.asked.length).toBeGreaterThan(0);
    const { host } = new URL(server.url);
    expect(proxy.asked.every((line) => line.includes(host))).toBe(true);
    expect(server.requests).toHaveLength(2);
  });

  test("is left out for the names in no_proxy", async () => {
    const proxy = await startProxy();
    setEnvironment({ http_proxy: proxy.url, no_proxy: "127.0.0.1,example.org" });
    const { mirror } = await staticMirror();
    expect((await manifestOf(mirror)).kind).toBe("read");
    expect(proxy.asked).toEqual([]);
  });

  test("that is down makes the mirror unreachable", async () => {
    const server = createRawServer();
    const port = await listen(server);
    await new Promise((resolve) => server.close(resolve));
    setEnvironment({ http_proxy: `http://127.0.0.1:${port}` });
    const { mirror } = await staticMirror();
    expect((await rejectionOf(soon(manifestOf(mirror)))).code).toBe("MIRROR_UNREACHABLE");
  });
});
