import { Option } from "@commander-js/extra-typings";

/** `--utc`: exact times instead of local and relative ones; for `Times` of `core/text/times`. */
export function utcOption(): Option<"--utc"> {
  return new Option("--utc", "show exact UTC times");
}
