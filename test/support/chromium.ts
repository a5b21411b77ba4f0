import { execFile, spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { temporaryDirectory } from "./temporary.ts";

const found = spawnSync("chromium", ["--version"], { encoding: "utf8" });

/** Whether there is a browser; `scripts/setup test` installs it. */
export const hasChromium = found.status === 0;

// Loudly: nobody has seen the page then.
if (!hasChromium) console.warn("SKIPPED: chromium is not installed; run scripts/setup test");

async function chromium(...args: string[]): Promise<string> {
  const profile = await temporaryDirectory();
  const { stdout } = await promisify(execFile)(
    "chromium",
    [
      ...["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"],
      ...["--disable-background-networking", `--user-data-dir=${profile}`],
      ...args,
    ],
    {
      env: { PATH: process.env["PATH"] ?? "", HOME: profile },
      timeout: 120_000,
      maxBuffer: 64 * 1024 ** 2,
    },
  );
  return stdout;
}

/** The page as it stands in the browser once its script has run. */
export function domOf(file: string): Promise<string> {
  return chromium("--dump-dom", pathToFileURL(file).href);
}

/** A screenshot's width and height, and how many bytes it has: a blank page has very few. */
export async function screenshotOf(
  file: string,
  [width, height]: readonly [number, number],
): Promise<{ width: number; height: number; bytes: number }> {
  const picture = join(await temporaryDirectory(), "page.png");
  await chromium(
    `--window-size=${width},${height}`,
    `--screenshot=${picture}`,
    pathToFileURL(file).href,
  );
  const png = await readFile(picture);
  // The size stands in the first chunk (PNG specification, section 11.2.2).
  return { width: png.readUInt32BE(16), height: png.readUInt32BE(20), bytes: png.length };
}
