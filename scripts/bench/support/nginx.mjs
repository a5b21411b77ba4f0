// A real nginx over a directory: its own port, configuration and logs, loopback only.
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const START_TIMEOUT_MS = 10_000;

/** As Debian's, without what static files do not need; every request is logged when it ends. */
function configuration(directory, port, home) {
  return `
    daemon off;
    # Files of root's temporary directories are root's alone.
    ${process.getuid?.() === 0 ? "user root;" : ""}
    worker_processes 1;
    pid ${home}/nginx.pid;
    error_log ${home}/error.log warn;
    events { worker_connections 256; }
    http {
      sendfile on;
      tcp_nopush on;
      default_type application/octet-stream;
      log_format bytes "$status $request_length $bytes_sent $request_uri $http_range";
      access_log ${home}/access.log bytes;
      client_body_temp_path ${home}/body;
      proxy_temp_path ${home}/proxy;
      fastcgi_temp_path ${home}/fastcgi;
      uwsgi_temp_path ${home}/uwsgi;
      scgi_temp_path ${home}/scgi;
      server {
        listen 127.0.0.1:${port};
        root ${directory};
      }
    }`;
}

/**
 * Serves `directory`; keeps its files in `home`, a new directory. `requests()` are those
 * that ended, with their bytes on the wire (headers included, TCP and IP not).
 */
export async function startNginx(directory, home) {
  mkdirSync(home);
  const port = await freePort();
  writeFileSync(join(home, "nginx.conf"), configuration(directory, port, home));
  const errors = join(home, "error.log");
  // It ends with this process, however that ends (setpriv(1), prctl(2)).
  const command = ["--pdeathsig", "TERM", "nginx", "-p", home, "-e", errors];
  const child = spawn("setpriv", [...command, "-c", join(home, "nginx.conf")], {
    stdio: "ignore",
  });
  let ended = false;
  child.once("error", () => (ended = true));
  child.once("exit", () => (ended = true));
  const stop = () => {
    child.kill("SIGTERM");
  };
  // The main process listens before it has a worker.
  const workerPid = () => Number(readText(`/proc/${child.pid}/task/${child.pid}/children`).trim());
  const deadline = Date.now() + START_TIMEOUT_MS;
  while (workerPid() === 0 || !(await answers(port))) {
    if (ended || Date.now() > deadline) {
      stop();
      throw new Error(`nginx did not start:\n${readText(errors)}`);
    }
    await sleep(20);
  }
  return {
    url: `http://127.0.0.1:${port}`,
    /** The process that answers; there is one. */
    workerPid,
    requests: () =>
      readText(join(home, "access.log"))
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => {
          const [status, received, sent, path, range] = line.split(" ");
          return {
            status: Number(status),
            bytes: Number(received) + Number(sent),
            path,
            range: range === "-" ? null : range,
          };
        }),
    stop,
  };
}

/** Bytes of these requests and their answers on the wire. */
export function wireBytes(requests) {
  return requests.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** A port that nobody listens on at this moment. */
async function freePort() {
  const server = createServer();
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function answers(port) {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(true));
    socket.once("error", () => resolve(false));
    socket.once("close", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}

function readText(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
