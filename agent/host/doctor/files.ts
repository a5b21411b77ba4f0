import { adviceFor } from "../../core/doctor/advice.ts";
import { judgeDisks, judgeSecret } from "../../core/doctor/files.ts";
import { about, type CheckId, type CheckResult } from "../../core/doctor/result.ts";
import { judgeReportServer } from "../../core/doctor/route.ts";
import { directoriesAmong } from "../../core/formats/mirror-address.ts";
import { STORE_DIRECTORY } from "../../core/formats/store-path.ts";
import type { Recollection } from "../../core/ports.ts";
import type { AgentTools } from "../agent-tools.ts";
import type { Trial, TryTools } from "./trying.ts";

type Results = readonly CheckResult[];

/** What trying files takes. */
export type FileTools = TryTools & Pick<AgentTools, "settings" | "store" | "disk">;

/** Directories, disks, secrets, and where reports go. */
export function tryFiles(tools: FileTools, trial: Trial): Promise<Results>[] {
  return [
    tryDirectory("files.state", tools, trial),
    tryDirectory("files.runtime", tools, trial),
    tryDisks(tools, trial),
    ...trySecrets(tools, trial),
    ...tryReports(tools, trial),
  ];
}

function tryDirectory(
  id: CheckId & ("files.state" | "files.runtime"),
  { settings, examination }: FileTools,
  trial: Trial,
): Promise<Results> {
  const directory = id === "files.state" ? settings.paths.state : settings.paths.runtime;
  return trial.of(
    id,
    async () => {
      const it = about(id, directory);
      // The rule asks whether a directory is this user's, and the agent is root.
      if (!trial.isRoot) return it.untried("only root can tell", "run it as root");
      if (await examination.expectPrivate(directory)) return it.passed("root alone");
      return id === "files.state"
        ? it.failed(
            "it is not there",
            "start the agent, which makes it: `systemctl start nixos-pull`",
          )
        : it.passed("not there yet; the agent makes it");
    },
    directory,
  );
}

/** Whether the record is whole. `recollection` is what is left of it. */
export function judgeRecord({ alarms }: Recollection): CheckResult[] {
  const it = about("files.record");
  if (alarms.length === 0) return [it.passed("whole")];
  return alarms.map(({ code, message }) => it.failed(message, adviceFor(code), code));
}

function tryDisks(
  { settings, store, disk, examination }: FileTools,
  trial: Trial,
): Promise<Results> {
  const { paths, limits } = settings;
  const places = [
    { what: "store", path: store.realPath(STORE_DIRECTORY) },
    { what: "state", path: paths.state },
    { what: "staging", path: paths.staging },
  ];
  return trial.of("disk.space", async () =>
    judgeDisks(
      await Promise.all(
        places.map(async ({ what, path }) => ({
          ...{ what, path },
          mount: await examination.mount(path),
          space: await disk.freeSpace(path),
        })),
      ),
      limits,
    ),
  );
}

/** Secrets for mirrors, and the files for TLS. */
function trySecrets({ settings, examination }: FileTools, trial: Trial): Promise<Results>[] {
  const { credentials, tls } = settings;
  const files = new Set([
    ...Object.values(credentials)
      // Keys of the machine's role lie in no file.
      .filter(({ type }) => type !== "instance-role")
      .map((it) => examination.credentialFile(it)),
    ...(tls.keyFile === undefined ? [] : [tls.keyFile]),
  ]);
  const secrets = [...files].map((path) =>
    trial.of(
      "files.credential",
      async () => judgeSecret(path, await examination.file(path), trial.isRoot),
      path,
    ),
  );
  const named = [tls.caFile, tls.certFile, tls.keyFile].filter((it) => it !== undefined);
  if (named.length === 0) return secrets;
  const pem = trial.of("files.tls", async () => {
    await examination.tlsFiles();
    return about("files.tls").passed(named.join(", "));
  });
  return [...secrets, pem];
}

/** Where reports go, if they go anywhere. */
function tryReports({ settings, examination }: FileTools, trial: Trial): Promise<Results>[] {
  const { reports, sticks, mirrors, hostname } = settings;
  const { url, directory } = reports;
  const tries: Promise<Results>[] = [];
  if (url !== undefined) {
    const ask = (signal: AbortSignal): Promise<CheckResult> =>
      examination
        .route(url, `${hostname}.json`, signal)
        .then((route) => judgeReportServer(url, route));
    tries.push(trial.of("reports.url", ask, url));
  }
  if (directory !== undefined) {
    const look = async (): Promise<CheckResult> => {
      const it = about("reports.directory", directory);
      const found = await examination.file(directory);
      return found?.kind === "directory"
        ? it.passed("it is there")
        : it.failed("it is not there", "make it or mount it: the agent does not make it");
    };
    tries.push(trial.of("reports.directory", look, directory));
  }
  if (sticks.reports) {
    const it = about("reports.sticks");
    const found = directoriesAmong(mirrors).map(({ address }) => address);
    const advice = "name the stick in mirrors (file:///…), or set sticks.reports to false";
    const none = it.failed("mirrors names no directory", advice);
    tries.push(Promise.resolve([found.length > 0 ? it.passed(found.join(", ")) : none]));
  }
  return tries;
}
