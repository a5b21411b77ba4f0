/** What every command is given beside its own options. */
export interface CommandContext {
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
}

/** Options that host commands share. */
export interface HostOptions {
  readonly config?: string;
}

/** A command ends with an exit code; errors are thrown. */
export type CommandResult = Promise<number>;
