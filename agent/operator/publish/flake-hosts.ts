import * as z from "zod";
import { PullError } from "../../core/errors.ts";
import { nixText } from "../../core/publish/nix-text.ts";
import { heapIn, TO_SPECS, withStatistics, type HostSet } from "./host-set.ts";
import { EXPERIMENTAL, LOCKED, nix, type BuildContext } from "./nix-builder.ts";

/** What `nix flake metadata --json` says that is used here. */
const metadataSchema = z.object({ url: z.string() });
const namesSchema = z.array(z.string());
const hostsSchema = z.record(z.string(), z.unknown());

/**
 * Where Nix looks attributes up anew: failures that Nix remembers have no text, and processes that run
 * at the same time wait for each other's memory.
 */
const FRESH = ["--option", "eval-cache", "false"];

/**
 * The hosts of one attribute set of a flake, such as `nixosConfigurations`. The flake is evaluated as
 * `nix build` does it, purely and with the inputs of its lock file. All processes evaluate the commit
 * that the reference named at the beginning, if it is one.
 */
export function flakeHosts(reference: string, attribute: string): HostSet {
  const label = `${reference}#${attribute}`;
  let locked: Promise<string> | undefined;
  const urlOf = (context: BuildContext): Promise<string> =>
    (locked ??= lockedUrl(reference, context));
  const apply = async (function_: string, context: BuildContext) => {
    const installable = `${await urlOf(context)}#${attribute}`;
    const args = ["eval", "--json", ...LOCKED, ...FRESH, installable, "--apply", function_];
    return nix("nix", [...EXPERIMENTAL, ...args], context);
  };
  return {
    label,
    async names(context) {
      try {
        const { stdout } = await apply("builtins.attrNames", context);
        return namesSchema.parse(JSON.parse(stdout));
      } catch (error) {
        throw explained(error, reference, attribute);
      }
    },
    async evaluate(names, context) {
      const function_ = `hosts: (${TO_SPECS}) hosts ${nixText(names)}`;
      const { stdout, stderr } = await apply(function_, withStatistics(context));
      return { hosts: hostsSchema.parse(JSON.parse(stdout)), heap: heapIn(stderr) };
    },
    async expression(context) {
      const url = await urlOf(context);
      // A pure evaluation takes no flake that may change, such as a directory with changes.
      if (!/[?&](rev|narHash)=|^\w+:[^?]*\/[0-9a-f]{40}(\?|$)/.test(url)) return null;
      const text = `(builtins.getFlake ${nixText(url)}).${attribute}`;
      return { text, pure: true };
    },
  };
}

/** The reference with the commit that it names now; as it is for a directory with changes. */
async function lockedUrl(reference: string, context: BuildContext): Promise<string> {
  const args = ["flake", "metadata", "--json", ...LOCKED, reference];
  const { stdout } = await nix("nix", [...EXPERIMENTAL, ...args], context);
  return metadataSchema.parse(JSON.parse(stdout)).url;
}

/** An error of a flake as a whole, with what the operator may do. */
function explained(error: unknown, reference: string, attribute: string): unknown {
  if (!(error instanceof PullError) || error.code !== "BUILD_FAILED") return error;
  if (error.message.includes("does not provide attribute")) {
    const message = `expected ${attribute} in the flake ${reference}, found no such output`;
    return new PullError("CONFIG_INVALID", message, { cause: error });
  }
  return error;
}
