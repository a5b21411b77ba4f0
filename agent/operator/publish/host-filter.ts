import { PullError } from "../../core/errors.ts";
import { hostnameSchema } from "../../core/formats/manifest.ts";

/** Which hosts of a flake or a hosts file are published: names, or patterns with `*` and `?`. */
export interface HostFilter {
  /** Only these; all if there are none. */
  readonly only: readonly string[];
  readonly except: readonly string[];
}

/**
 * The names that a filter leaves, in their order. Throws USAGE for a pattern that fits no host, since
 * it is mistyped, and if no host is left; CONFIG_INVALID for a name that no host can have.
 */
export function filterHosts(names: readonly string[], filter: HostFilter, label: string): string[] {
  for (const option of ["only", "except"] as const) {
    for (const pattern of filter[option]) {
      if (names.some((name) => fits(name, pattern))) continue;
      // A name that is wanted may come from `--flake FLAKE#NAME` as well.
      const place = option === "except" ? "--except: " : "";
      throw new PullError(
        "USAGE",
        `${place}expected a host of ${label}, found ${JSON.stringify(pattern)}, which fits none of ${describeNames(names)}`,
      );
    }
  }
  const { only, except } = filter;
  const isWanted = (name: string): boolean =>
    (only.length === 0 || only.some((pattern) => fits(name, pattern))) &&
    !except.some((pattern) => fits(name, pattern));
  const left = names.filter(isWanted);
  if (left.length === 0) {
    throw new PullError("USAGE", `expected at least one host of ${label}, found none that is left`);
  }
  for (const name of left) {
    if (hostnameSchema.safeParse(name).success) continue;
    const message = `${label}: expected names of hosts, found ${JSON.stringify(name)}`;
    throw new PullError("CONFIG_INVALID", message);
  }
  return left;
}

/** More names are only counted. */
const MAX_NAMES = 10;

function describeNames(names: readonly string[]): string {
  if (names.length === 0) return "its hosts: it has none";
  const more = names.length - MAX_NAMES;
  return names.slice(0, MAX_NAMES).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

/** Whether a name is a pattern's: `*` is any text, `?` any one character. */
function fits(name: string, pattern: string): boolean {
  const parts = pattern.split(/([*?])/).map((part) => {
    if (part === "*") return ".*";
    return part === "?" ? "." : part.replace(/[\\^$.|+()[\]{}]/g, "\\$&");
  });
  return new RegExp(`^${parts.join("")}$`, "s").test(name);
}
