import { inject } from "vitest";
import { killsDuring, randomFor, surviveEach } from "./support/runs.ts";
import { isBetween } from "./support/scenario.ts";

const points = inject("kill").points.rollback;

// app/agent.ts, rollBack: that the system is denied is recorded, that it is being left is
// not. Killed between that and the end of the switch, release 2 runs on, denied, and
// generation 1 may boot next; no later run goes on with it.
surviveEach(
  killsDuring("rollback", randomFor("rollback")),
  ({ at }) =>
    isBetween(
      points,
      at,
      /^rename state\.json \(Idle\), after/,
      /^spawn switch-to-configuration .*, both killed/,
    ) && !/^spawn switch-to-configuration .*, in the middle \[/.test(at),
);
