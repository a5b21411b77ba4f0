export const MODULE_OPTIONS: string;
export function moduleOptions(nixpkgs?: string): Promise<string | null>;
