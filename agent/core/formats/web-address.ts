import * as z from "zod";

/** A URL, or null if the text is none (`URL.parse` is younger than Node 20.19). */
export function parseUrl(text: string, base?: URL): URL | null {
  try {
    return new URL(text, base);
  } catch {
    return null;
  }
}

/** What stands in an address stands in logs and status: a user and a password may not. */
export function hasUserInfo({ username, password }: URL): boolean {
  return username !== "" || password !== "";
}

/** An `http://` or `https://` address of any host, this very one too. */
export const httpAddressSchema = z.string().refine(
  (text) => {
    const url = parseUrl(text);
    return (url?.protocol === "http:" || url?.protocol === "https:") && !hasUserInfo(url);
  },
  { error: "expected an http:// or https:// address without user and password" },
);
