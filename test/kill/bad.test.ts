import { killsAfterImport, randomFor, surviveEach } from "./support/runs.ts";

const random = randomFor("bad");
surviveEach(killsAfterImport("switchFails", random));
surviveEach(killsAfterImport("unhealthy", random));
surviveEach(killsAfterImport("unhealthyTest", random));
