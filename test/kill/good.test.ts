import { killsDuring, randomFor, surviveEach } from "./support/runs.ts";

surviveEach(killsDuring("good", randomFor("good")));
