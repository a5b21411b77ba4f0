import { readFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import type { MirrorServer, Misbehaviour } from "./mirror-server.ts";

/** Ways in which an HTTP server can be bad, to be put into `MirrorServer.misbehave`. */

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

const isManifest = (request: IncomingMessage): boolean =>
  request.url?.endsWith("/manifest.json") === true;
const isArchive = (request: IncomingMessage): boolean =>
  request.url?.startsWith("/archives/") === true;

/** Answers requests for the manifest like this, everything else honestly. */
export function manifestAnswers(answer: Answer): Misbehaviour {
  return (request, response) => {
    if (!isManifest(request)) return false;
    answer(request, response);
    return true;
  };
}

/** Answers requests for archives like this, everything else honestly. */
export function archiveAnswers(answer: Answer): Misbehaviour {
  return (request, response) => {
    if (!isArchive(request)) return false;
    answer(request, response);
    return true;
  };
}

/** Gives the status and a short text for the manifest. */
export function manifestStatus(
  status: number,
  headers: Record<string, string> = {},
  text = "no such luck",
): Misbehaviour {
  return manifestAnswers((_, response) => {
    response.writeHead(status, headers).end(text);
  });
}

/** Takes the request and says nothing, ever. */
export const neverAnswers: Misbehaviour = () => true;

/** What a server does after it sent the first part of an archive. */
export interface Interruption {
  /** Resolves when the first part was handed to the network. */
  readonly reached: Promise<void>;
  readonly misbehave: Misbehaviour;
  /** Sends the rest, where the server merely waited. */
  goOn(): void;
}

/**
 * Serves NARs (not the index) up to `bytes` after the first one asked for, then waits,
 * or cuts the connection. No later request gets anything behind that place either.
 */
export function interruptArchive(
  directory: string,
  bytes: number,
  then: "wait" | "cut",
  { ranges = true } = {},
): Interruption {
  let reached = (): void => undefined;
  const waiting: (() => void)[] = [];
  let place: number | null = null;
  const misbehave: Misbehaviour = (request, response) => {
    const range = rangeOf(request);
    // The index is asked for by its own range at the start.
    if (!isArchive(request) || !range || range.from <= 512) return false;
    const file = readFileSync(join(directory, request.url ?? ""));
    const [from, to] = ranges ? [range.from, range.to + 1] : [0, file.length];
    response.writeHead(ranges ? 206 : 200, {
      "content-length": to - from,
      ...(ranges ? { "content-range": `bytes ${from}-${to - 1}/${file.length}` } : {}),
    });
    place ??= range.from + bytes;
    const pause = Math.max(from, Math.min(place, to));
    if (pause === to) {
      response.end(file.subarray(from, to));
      return true;
    }
    const interrupt = (): void => {
      if (then === "cut") request.socket.destroy();
      else waiting.push(() => response.end(file.subarray(pause, to)));
      reached();
    };
    if (pause > from) response.write(file.subarray(from, pause), interrupt);
    else {
      response.flushHeaders();
      interrupt();
    }
    return true;
  };
  return {
    reached: new Promise((resolve) => (reached = resolve)),
    misbehave,
    goOn: () => {
      place = Infinity;
      for (const go of waiting.splice(0)) go();
    },
  };
}

/** The byte range that a request asks for, both ends included. */
export function rangeOf(request: {
  headers: { range?: string | undefined };
}): { from: number; to: number } | null {
  return parseRange(request.headers.range);
}

/** `bytes=FROM-TO` of a request log. */
export function parseRange(text: string | undefined): { from: number; to: number } | null {
  const found = /^bytes=(\d+)-(\d+)$/.exec(text ?? "");
  return found ? { from: Number(found[1]), to: Number(found[2]) } : null;
}

/** Resolves when the server is first asked for a path with this ending, before it answers. */
export function whenAsked(server: MirrorServer, ending: string): Promise<void> {
  return new Promise((resolve) => {
    const before = server.misbehave;
    server.misbehave = (request, response) => {
      if (request.url?.endsWith(ending)) resolve();
      return before(request, response);
    };
  });
}
