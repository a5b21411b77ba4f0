import { repeatable } from "./values.ts";

/** `--keys`: the keys by which reports are believed, wherever reports are read. */
export function hostKeysOption() {
  return repeatable(
    "--keys <path>",
    "hosts' keys: a file of HOST KEY lines or of keys named host-HOST, or a directory of HOST.public",
  );
}

/** `--report-key`: one such key, on the command line. */
export function reportKeyOption() {
  return repeatable("--report-key <key>", "a reporting host's key, host-NAME:BASE64");
}
