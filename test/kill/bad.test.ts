import { killsDuring, randomFor, surviveEach } from "./support/runs.ts";

const random = randomFor("bad");
surviveEach(killsDuring("switchFails", random, { from: "import" }));
surviveEach(killsDuring("unhealthy", random, { from: "import" }));
surviveEach(killsDuring("unhealthyTest", random, { from: "import" }));
