export interface MeasuredRun {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly ownCpuSeconds: number;
  readonly peakRssBytes: number;
}

export interface MeasuredRunOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly onSample?: (pid: number) => void;
}

/** Runs a program to its end and says what it took. */
export function runMeasured(
  command: string,
  args: readonly string[],
  options?: MeasuredRunOptions,
): Promise<MeasuredRun>;

/** As runMeasured, but throws with the program's words where it fails. */
export function runChecked(
  command: string,
  args: readonly string[],
  options?: MeasuredRunOptions,
): Promise<MeasuredRun>;
