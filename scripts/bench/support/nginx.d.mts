/** A request that was answered. */
export interface ServedRequest {
  readonly status: number;
  /** On the wire in both directions, headers included, TCP and IP not. */
  readonly bytes: number;
  readonly path: string;
  readonly range: string | null;
}

export interface NginxServer {
  readonly url: string;
  /** The process that answers; there is one. */
  workerPid(): number;
  /** The requests that ended until now. */
  requests(): ServedRequest[];
  stop(): void;
}

/** Serves `directory` on loopback; keeps its own files in `home`, a new directory. */
export function startNginx(directory: string, home: string): Promise<NginxServer>;

/** Bytes of these requests and their answers on the wire. */
export function wireBytes(requests: readonly ServedRequest[]): number;
