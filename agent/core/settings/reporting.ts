import * as z from "zod";
import { mirrorSchema } from "../formats/mirror-address.ts";
import { durationSchema } from "../text/duration.ts";
import { filePathSchema } from "./file-paths.ts";

/** A loopback address and a port: metrics say much about a host, and any client may read them. */
const loopbackSchema = z
  .string()
  .regex(
    /^(127(\.(0|[1-9]\d{0,2})){3}|\[::1\]|localhost):[1-9]\d{0,4}$/,
    "expected a loopback address and a port, such as 127.0.0.1:9184",
  )
  .refine((text) => Number(text.slice(text.lastIndexOf(":") + 1)) <= 65535, {
    error: "expected a port of at most 65535",
  });

/** `reports`: where signed reports go. */
export const reportsSchema = z
  .strictObject({
    directory: filePathSchema
      .optional()
      .describe(
        "Write a signed report HOSTNAME.json here after every poll. The agent does not make this directory: it may be on a stick.",
      ),
    url: mirrorSchema
      .refine((text) => /^https?:/.test(text), { error: "expected https:// or http://" })
      .optional()
      .describe("Send the report to HOSTNAME.json below this address, by HTTP PUT."),
  })
  .prefault({})
  .describe("Where this host sends its signed reports.");

/** `sticks`: mirrors in directories that come and go. */
export const sticksSchema = z
  .strictObject({
    watch: durationSchema
      .prefault("5s")
      .describe(
        "How often a waiting service looks for a file:// mirror that came or changed, to poll it at once; 0s: never.",
      ),
    reports: z
      .boolean()
      .default(false)
      .describe(
        "After every poll, write the signed report to reports/HOSTNAME.json on every file:// mirror that is there.",
      ),
  })
  .prefault({})
  .describe("Mirrors in directories that come and go, such as USB sticks.");

/** `statusSocket`: the status for a group of users. */
export const statusSocketSchema = z
  .strictObject({
    path: filePathSchema.optional().describe("Where the socket is made."),
    group: z.string().min(1).max(64).optional().describe("The group that may open it."),
  })
  .refine(({ path, group }) => group === undefined || path !== undefined, {
    error: "expected a path together with a group",
  })
  .prefault({})
  .describe("A Unix socket on which the service tells its status to a group.");

/** `metrics`: where metrics go. */
export const metricsSchema = z
  .strictObject({
    textfile: filePathSchema
      .regex(/\.prom$/, "expected a name that ends with .prom")
      .optional()
      .describe("Write metrics here after every poll, for node_exporter's textfile collector."),
    listen: loopbackSchema
      .optional()
      .describe("Loopback address and port on which the service gives metrics by HTTP."),
  })
  .prefault({})
  .describe("Metrics for Prometheus.");

/** `log`: what is logged, and how. */
export const logSchema = z
  .strictObject({
    level: z
      .enum(["debug", "info", "warn", "error"])
      .default("info")
      .describe("Least severe level that is logged."),
    format: z
      .enum(["auto", "text", "json"])
      .default("auto")
      .describe("auto: readable lines on a terminal and in the journal, JSON elsewhere."),
  })
  .prefault({})
  .describe("Logging.");
