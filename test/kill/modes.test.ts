import { killsDuring, randomFor, surviveEach } from "./support/runs.ts";

const random = randomFor("modes");
// Until the closure is in the store, all modes are the same.
surviveEach(killsDuring("boot", random, { from: "import" }));
surviveEach(killsDuring("test", random, { from: "import" }));
