import * as z from "zod";
import { PullError } from "../../core/errors.ts";
import { CONTENT_ADDRESS, NAR_HASH, type StorePathInfo } from "../../core/formats/narinfo.ts";
import { encodeBase32, storePathName, storePathSchema } from "../../core/formats/store-path.ts";

/** What `nix path-info --json` says of a path. Newer versions of Nix say more. */
const pathInfoSchema = z.object({
  narHash: z.string(),
  narSize: z.int().positive(),
  references: z.array(z.string()),
  ca: z.string().nullish(),
});
const listSchema = z.array(pathInfoSchema.extend({ path: storePathSchema }));
const mapSchema = z.record(storePathSchema, pathInfoSchema);

/**
 * Parses `nix path-info --json --recursive` of Nix 2.8 (a list, with SRI or base-32
 * hashes) or later (a map). Gives infos by base name. Throws PUBLISH_FAILED.
 */
export function parsePathInfos(text: string): Map<string, StorePathInfo> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new PullError("PUBLISH_FAILED", "nix path-info printed no JSON", { cause });
  }
  const list = listSchema.safeParse(json);
  const map = list.success ? null : mapSchema.safeParse(json);
  const infos = list.success
    ? list.data
    : Object.entries(map?.data ?? {}).map(([path, info]) => ({ path, ...info }));
  if (infos.length === 0) {
    throw new PullError("PUBLISH_FAILED", "expected store paths from nix path-info, found none");
  }
  return new Map(
    infos.map(({ path, narHash, narSize, references, ca }): [string, StorePathInfo] => {
      const storePath = storePathName(path);
      if (typeof ca === "string" && !CONTENT_ADDRESS.test(ca)) {
        throw new PullError("PUBLISH_FAILED", `${path}: expected a content address, found ${ca}`);
      }
      return [
        storePath,
        {
          storePath,
          narHash: base32Hash(narHash, path),
          narSize,
          references: references.map(storePathName).sort(),
          ...(typeof ca === "string" && { ca }),
        },
      ];
    }),
  );
}

/** A hash as `sha256:BASE32`, from that form or from an SRI hash. */
function base32Hash(text: string, path: string): string {
  if (NAR_HASH.test(text)) return text;
  const bytes = Buffer.from(/^sha256-([A-Za-z0-9+/]{43}=)$/.exec(text)?.[1] ?? "", "base64");
  if (bytes.length === 32) return `sha256:${encodeBase32(bytes)}`;
  throw new PullError("PUBLISH_FAILED", `${path}: expected a sha256 of its NAR, found ${text}`);
}
