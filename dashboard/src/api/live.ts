// The live numbers: one stream for the whole page, the last snapshot, and what is known of its truth.

import { useSyncExternalStore } from "react";
import { type Connection, INITIAL } from "./connection";
import { Stream } from "./stream";
import { ageNow } from "../text/condition";
import type { Summary, Trouble } from "./types";

export interface Live {
  connection: Connection;
  summary: Summary | null;
  /** When the summary came, by this machine's clock, ms: ages grow from there without trusting two clocks to agree. */
  receivedAt: number;
  /** Why the API has no numbers now; null when it has. */
  trouble: Trouble["error"] | null;
  /** What this page saw in the last minutes. */
  seen: Seen;
}

type Values = (number | null)[];
interface Seen {
  at: number[];
  rate: Values;
  lag: Values;
  age: Values;
}

const SEEN_KEPT = 300;

let live: Live = {
  connection: INITIAL,
  summary: null,
  receivedAt: 0,
  trouble: null,
  seen: { at: [], rate: [], lag: [], age: [] },
};
const listeners = new Set<() => void>();
let stream: Stream | null = null;

function change(part: Partial<Live>): void {
  live = { ...live, ...part };
  for (const listener of listeners) listener();
}

function push<Value>(values: Value[], value: Value): Value[] {
  return [...values.slice(-SEEN_KEPT + 1), value];
}

function start(): Stream {
  return new Stream("/api/v1/stream", {
    onConnection: (connection) => change({ connection }),
    onEvent: ({ event, data }) => {
      if (event === "summary") {
        const summary = JSON.parse(data) as Summary;
        const { seen } = live;
        change({
          summary,
          receivedAt: Date.now(),
          // With a stale summary comes, right behind it, why there is no newer one.
          trouble: summary.stale ? live.trouble : null,
          seen: {
            at: push(seen.at, Date.now() / 1000),
            rate: push(seen.rate, summary.events_per_s),
            lag: push(seen.lag, summary.lag_events),
            age: push(seen.age, ageNow({ summary, receivedAt: 0 }, 0)),
          },
        });
      } else if (event === "unavailable") {
        change({ trouble: (JSON.parse(data) as Trouble).error });
      }
    },
  });
}

export function useLive(): Live {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      stream ??= start();
      return () => listeners.delete(listener);
    },
    () => live,
  );
}

export function retryLive(): void {
  stream?.retryNow();
}
