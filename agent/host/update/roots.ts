/** Names of the agent's garbage collector roots. */
export const ROOT = {
  /** The system that is being brought in. */
  pending: "pending",
  /** The system that this host last became, and the one that it left for that. */
  current: "current",
  previous: "previous",
  /** The way back, for as long as a system is not committed. */
  previousProfile: "previous-profile",
  previousRunning: "previous-running",
  /** The generation that a person goes back to. */
  chosen: "chosen",
  /** The system that the next boot tries. */
  trial: "trial",
  /** The agent that goes back at the deadline. */
  agent: "agent",
} as const;
