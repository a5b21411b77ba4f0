/** Builds the bundle; gives its path. */
export function buildAgent(outfile?: string): Promise<string>;
