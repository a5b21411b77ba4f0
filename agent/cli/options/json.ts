import { Option } from "@commander-js/extra-typings";

/** `--json`: one JSON document on standard output instead of text for people. */
export function jsonOption(description = "print JSON") {
  return new Option("--json", description);
}
