/** Builds a 0.2.0 that is to be; gives its path. */
export function buildLaterVersion(outfile: string): Promise<string>;
