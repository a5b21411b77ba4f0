import { BUILD } from "../core/build.ts";

export const VERSION = BUILD.version;
