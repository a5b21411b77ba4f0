import { buildAgent } from "../../scripts/build.mjs";

/** The suites run the shipped bundle as users do; it is built before the first test. */
export default async function setup(): Promise<void> {
  await buildAgent();
}
