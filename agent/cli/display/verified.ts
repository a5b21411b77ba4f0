import { describePosition, positionOf } from "../../core/formats/manifest.ts";
import { counted } from "../../core/text/quantity.ts";
import { shortSystemNames } from "../../core/text/system-names.ts";
import type { Times } from "../../core/text/times.ts";
import type { VerifiedHost, VerifiedMirror } from "../../operator/mirror/verify-mirror.ts";
import { styled, table, type Line, type Screen, type Text } from "./screen.ts";

/** What was verified of one channel, in lines: whether it is good, then each host, bad ones first. */
export function verifiedLines(
  { signed, expired, hosts, older }: VerifiedMirror,
  times: Times,
  screen: Screen,
): Line[] {
  const { channel, createdAt, expiresAt } = signed.manifest;
  const bad = hosts.filter(({ code }) => code !== undefined).length;
  const olderBad = older.some((one) => [one, ...one.hosts].some(({ code }) => code !== undefined));
  const name = `Release ${describePosition(positionOf(signed.manifest))} of ${channel}`;
  const state =
    bad === 0 && olderBad
      ? styled("bad", "a release for older agents is wrong")
      : bad > 0
        ? styled(
            "bad",
            `${bad} of ${counted(hosts.length, "host")} ${bad === 1 ? "is" : "are"} wrong`,
          )
        : `all is right for ${counted(hosts.length, "host")}`;
  return [
    [
      styled(expired || bad > 0 || olderBad ? "bad" : "good", "●"),
      " ",
      styled("strong", name),
      ...[": ", state, `, signed by ${signed.signedBy.join(", ")}, made ${times.ago(createdAt)}, `],
      expired
        ? styled("bad", `EXPIRED ${times.both(expiresAt)}`)
        : `good until ${times.clock(expiresAt)}`,
    ],
    ...hostLines(hosts, screen),
    ...older.flatMap(({ epoch, sequence, until, code, message, ...one }): Line[] => {
      const title =
        `Release ${describePosition({ epoch, sequence })}, for older agents until ` +
        times.clock(until);
      return [
        code === undefined
          ? `${title}:`
          : [`${title}: `, styled("bad", code), `: ${message ?? ""}`],
        ...hostLines(one.hosts, screen),
      ];
    }),
  ];
}

function hostLines(hosts: readonly VerifiedHost[], screen: Screen): Line[] {
  if (hosts.length === 0) return [];
  const nameOf = shortSystemNames(hosts.map(({ toplevel }) => toplevel));
  const sorted = [
    ...hosts.filter(({ code }) => code !== undefined),
    ...hosts.filter(({ code }) => code === undefined),
  ];
  return table(
    sorted.map((host) => [styled("strong", host.hostname), ...hostCells(host, nameOf)]),
    screen,
  );
}

function hostCells(
  { toplevel, paths, code, message, leftOut, missing }: VerifiedHost,
  nameOf: (system: string) => string,
): Text[] {
  if (code !== undefined) return [styled("bad", code), message ?? ""];
  if (leftOut) return [styled("waiting", "left out"), nameOf(toplevel)];
  const held = missing === undefined ? "" : `, of which it must have ${counted(missing, "NAR")}`;
  return [styled("good", "ok"), `${counted(paths ?? 0, "path")}${held}  ${nameOf(toplevel)}`];
}
