/** An example of a manual page: its command's name without `nixos-pull`, what it does, and how. */
export interface ManExample {
  readonly page: string;
  readonly does: string;
  readonly command: string;
}

export const EXAMPLES: readonly ManExample[];
