export interface DebianSystemOptions {
  readonly generation?: number;
  /** Makes the closure smaller; the whole is of 1.7 GB. */
  readonly maxBytes?: number;
  readonly salt?: string;
}

/** Builds one host's system out of Debian packages; gives its store path. */
export function buildDebianSystem(options?: DebianSystemOptions): Promise<string>;
