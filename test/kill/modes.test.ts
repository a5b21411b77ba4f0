import { killsAfterImport, randomFor, surviveEach } from "./support/runs.ts";

const random = randomFor("modes");
surviveEach(killsAfterImport("boot", random));
surviveEach(killsAfterImport("test", random));
