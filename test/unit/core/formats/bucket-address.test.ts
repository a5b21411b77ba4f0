import { describe, expect, test } from "vitest";
import {
  bucketMirrorUrl,
  bucketUrl,
  parseBucketAddress,
  type BucketAddress,
} from "../../../../agent/core/formats/bucket-address.ts";
import { parseMirrorAddress } from "../../../../agent/core/formats/mirror-address.ts";

function parse(text: string): BucketAddress {
  const address = parseBucketAddress(new URL(text));
  if (!address) throw new Error(`${text} is none`);
  return address;
}

describe("the address of a bucket", () => {
  test.each([
    ["s3://fleet", "https://fleet.s3.us-east-1.amazonaws.com/"],
    ["s3://fleet/", "https://fleet.s3.us-east-1.amazonaws.com/"],
    ["s3://fleet/a/b.c?region=eu-west-1", "https://fleet.s3.eu-west-1.amazonaws.com/a/b.c/"],
    ["s3://fleet/a/", "https://fleet.s3.us-east-1.amazonaws.com/a/"],
    ["s3://fleet?region=cn-north-1", "https://fleet.s3.cn-north-1.amazonaws.com.cn/"],
    ["s3://my.fleet", "https://s3.us-east-1.amazonaws.com/my.fleet/"],
    ["s3://fleet?pathStyle=true", "https://s3.us-east-1.amazonaws.com/fleet/"],
    ["s3://fleet/a?endpoint=https://store.example.org", "https://store.example.org/fleet/a/"],
    ["s3://fleet/a?endpoint=store.example.org:9000", "https://store.example.org:9000/fleet/a/"],
    ["s3://fleet?endpoint=http://127.0.0.1:9000", "http://127.0.0.1:9000/fleet/"],
    [
      "s3://fleet/a?endpoint=https://store.example.org&pathStyle=false",
      "https://fleet.store.example.org/a/",
    ],
  ])("%s is %s by HTTP", (text, url) => {
    expect(bucketMirrorUrl(parse(text)).href).toBe(url);
    expect(url.startsWith(bucketUrl(parse(text)).href)).toBe(true);
    expect(parseMirrorAddress(text)).toEqual({ text, kind: "bucket", bucket: parse(text) });
  });

  test.each([
    ["a user", "s3://me@fleet/a"],
    ["keys", "s3://AKIA:secret@fleet/a"],
    ["a fragment", "s3://fleet/a#b"],
    ["a port", "s3://fleet:9000/a"],
    ["no bucket", "s3:///a"],
    ["a bucket that cannot be", "s3://Fleet_1/a"],
    ["a bucket with two dots", "s3://a..b/a"],
    ["what signatures may encode in two ways", "s3://fleet/a+b"],
    ["an encoded name", "s3://fleet/a%20b"],
    ["two slashes", "s3://fleet//a"],
    ["another parameter", "s3://fleet?profile=mine"],
    ["a parameter twice", "s3://fleet?region=a&region=b"],
    ["a region that is none", "s3://fleet?region=a.example.org/"],
    ["an empty endpoint", "s3://fleet?endpoint="],
    ["an endpoint with a path", "s3://fleet?endpoint=https://store.example.org/a"],
    ["an endpoint with a password", "s3://fleet?endpoint=https://a:b@store.example.org"],
    ["an endpoint of another protocol", "s3://fleet?endpoint=ftp://store.example.org"],
    ["another style", "s3://fleet?pathStyle=yes"],
  ])("has no %s", (_, text) => {
    expect(parseMirrorAddress(text)).toBeNull();
  });
});
