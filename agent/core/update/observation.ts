/** What the agent sees of its host: which systems the host is made of. */
export interface Observation {
  /** What the system profile points at. */
  readonly profile: string | null;
  /** The system that runs; null if that is not known (a sandbox without /run/current-system). */
  readonly running: string | null;
  /** The specialisation of it that runs; absent if it is the system itself. */
  readonly specialisation?: string;
  /** The system that was booted; absent or null if that is not known. */
  readonly booted?: string | null;
}
