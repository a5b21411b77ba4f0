import { killsDuring, randomFor, surviveEach } from "./support/runs.ts";

surviveEach(killsDuring("rollback", randomFor("rollback")));
