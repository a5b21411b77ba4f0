import { directoriesAmong } from "../../core/formats/mirror-address.ts";
import type { ReportOutlets } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { writeDurably } from "../files/durable-file.ts";
import { Transport } from "../mirror/transport.ts";
import { serveMetrics } from "./metrics-server.ts";
import { deliverReport } from "./report-outbox.ts";
import { serveStatus } from "./status-socket.ts";
import { writeOnStick } from "./stick-report-writer.ts";

/** The places to which a host with these settings reports. */
export function reportOutletsOf(settings: Settings): ReportOutlets {
  return {
    async deliver(target, envelope, signal) {
      const transport = new Transport(settings);
      try {
        await deliverReport(target, envelope, { settings, transport, signal });
      } finally {
        await transport.close();
      }
    },
    async leaveOnStick(address, envelope) {
      for (const { directory } of directoriesAmong([address])) {
        await writeOnStick(directory, `${settings.hostname}.json`, envelope);
      }
    },
    writeMetrics: (path, text) => writeDurably(path, text, 0o644),
    serveMetrics,
    serveStatus: ({ path, group }, answer) => serveStatus(path, group, answer),
  };
}
