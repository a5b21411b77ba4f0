/** What `publish --json` says of one host. */
export interface PublishedHost {
  readonly hostname: string;
  readonly toplevel: string;
  readonly mode: string;
  readonly reused: boolean;
  readonly archive: { readonly sha256: string; readonly size: number };
}

/** The hosts of what `publish --json` printed, by name. */
export function publishedHosts(stdout: string): Record<string, PublishedHost> {
  const { hosts } = JSON.parse(stdout) as { hosts: PublishedHost[] };
  return Object.fromEntries(hosts.map((host) => [host.hostname, host]));
}
