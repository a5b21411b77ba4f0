export const HASHES_FILE: string;
export function lockfileHash(): Promise<string>;
export function nodeModulesHash(system: string): Promise<string>;
