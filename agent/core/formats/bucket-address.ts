import { parseUrl } from "./web-address.ts";

/** A place in a bucket of AWS or of a store that speaks the same protocol. */
export interface BucketAddress {
  readonly bucket: string;
  /** Where the mirror begins in the bucket: "" or a path without a slash at its ends. */
  readonly prefix: string;
  readonly region: string;
  /** The store's own address; null for AWS. */
  readonly endpoint: URL | null;
  /** Whether the bucket's name is in the path of requests, and not in the host's name. */
  readonly pathStyle: boolean;
}

/** What Nix takes too if an address names no region. */
const DEFAULT_REGION = "us-east-1";

/** "Bucket naming rules" of the Amazon S3 User Guide. */
const BUCKET = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;

/** Characters that no two implementations of signatures encode differently. */
const PREFIX = /^(?:\/[A-Za-z0-9._~-]{1,100}){0,20}\/?$/;

const REGION = /^[a-z0-9-]{1,40}$/;

const PARAMETERS: ReadonlySet<string> = new Set(["region", "endpoint", "pathStyle"]);

/**
 * The place that `s3://BUCKET/PREFIX?region=…&endpoint=…&pathStyle=…` names; null if it is none. An
 * endpoint is an `https://` or `http://` address of a host, or such a host alone. Everything after
 * the bucket may be absent. With an endpoint, `pathStyle` is true unless the address says otherwise.
 */
export function parseBucketAddress(url: URL): BucketAddress | null {
  const { protocol, hostname, pathname, port, hash, searchParams } = url;
  const names = [...searchParams.keys()];
  const isWellFormed =
    protocol === "s3:" &&
    port === "" &&
    hash === "" &&
    BUCKET.test(hostname) &&
    !hostname.includes("..") &&
    PREFIX.test(pathname) &&
    names.every((name) => PARAMETERS.has(name)) &&
    new Set(names).size === names.length;
  if (!isWellFormed) return null;
  const region = searchParams.get("region") ?? DEFAULT_REGION;
  const given = searchParams.get("endpoint");
  const endpoint = given === null ? null : parseEndpoint(given);
  const style = searchParams.get("pathStyle");
  const isStyle = style === null || style === "true" || style === "false";
  if (!REGION.test(region) || !isStyle || (given !== null && endpoint === null)) return null;
  return {
    ...{ bucket: hostname, region, endpoint },
    prefix: pathname.replace(/^\/|\/$/g, ""),
    // The certificates of AWS have no name for a bucket with a dot.
    pathStyle: style === null ? endpoint !== null || hostname.includes(".") : style === "true",
  };
}

function parseEndpoint(text: string): URL | null {
  const url = parseUrl(/^https?:\/\//.test(text) ? text : `https://${text}`);
  const isHost =
    url !== null &&
    url.username === "" &&
    url.password === "" &&
    url.pathname === "/" &&
    url.search === "" &&
    url.hash === "";
  return isHost ? url : null;
}

/** AWS's domain for a region's services. */
export function awsDomain(region: string): string {
  return region.startsWith("cn-") ? "amazonaws.com.cn" : "amazonaws.com";
}

/** The address of the bucket itself by HTTP, with a slash at its end. */
export function bucketUrl({ bucket, region, endpoint, pathStyle }: BucketAddress): URL {
  const store = endpoint ?? new URL(`https://s3.${region}.${awsDomain(region)}`);
  if (pathStyle) return new URL(`${bucket}/`, store);
  return new URL(`${store.protocol}//${bucket}.${store.host}/`);
}

/** The address of the mirror in the bucket by HTTP, with a slash at its end. */
export function bucketMirrorUrl(address: BucketAddress): URL {
  const { prefix } = address;
  return new URL(prefix === "" ? "." : `${prefix}/`, bucketUrl(address));
}
