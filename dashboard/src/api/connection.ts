// How a stream's connection stands, as a state machine without clock, network or chance of its own.

export type Connection =
  /** Asked, and not answered yet. `failures` in a row before this try. */
  | { phase: "connecting"; failures: number }
  | { phase: "open" }
  /** Cut off; the next try is at `retryAt` (ms). */
  | { phase: "waiting"; failures: number; retryAt: number; reason: string }
  /** The server wants a token. */
  | { phase: "locked"; refused: boolean };

export type Happening =
  | { type: "opened" }
  | { type: "failed"; reason: string; at: number; chance: number }
  | { type: "retry" }
  | { type: "unauthorised"; hadToken: boolean };

export const FIRST_PAUSE_MS = 500;
export const LONGEST_PAUSE_MS = 10_000;

/** Pause before the next try: doubling, bounded, and spread by `chance` (0 to 1) so that pages do not come back as one. */
export function pauseMs(failures: number, chance: number): number {
  const doubled = FIRST_PAUSE_MS * 2 ** Math.min(failures - 1, 10);
  return Math.round(Math.min(doubled, LONGEST_PAUSE_MS) * (0.75 + chance / 2));
}

export const INITIAL: Connection = { phase: "connecting", failures: 0 };

export function next(state: Connection, happening: Happening): Connection {
  switch (happening.type) {
    case "opened":
      return { phase: "open" };
    case "unauthorised":
      return { phase: "locked", refused: happening.hadToken };
    case "failed": {
      const failures = 1 + (state.phase === "connecting" || state.phase === "waiting" ? state.failures : 0);
      const retryAt = happening.at + pauseMs(failures, happening.chance);
      return { phase: "waiting", failures, retryAt, reason: happening.reason };
    }
    case "retry":
      if (state.phase === "open") return state;
      return { phase: "connecting", failures: state.phase === "locked" ? 0 : state.failures };
  }
}
