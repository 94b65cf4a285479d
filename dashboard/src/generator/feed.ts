// The generator's stream: its state, its events into the console, and the newest of them for the page.

import { useSyncExternalStore } from "react";
import { type Connection, INITIAL } from "../api/connection";
import { Stream } from "../api/stream";
import { isGrouped, type Row, type Shown, shown, writeToConsole } from "./batches";

export interface GeneratorState {
  target_per_s: number;
  reached_per_s: number;
  rate_max: number;
  bots: boolean;
  malformed: boolean;
  sent: number;
  delivered: number;
  failed: number;
  waiting: number;
  /** Why events do not reach Kafka; empty when they do. */
  trouble: string;
  topic: string;
}

export interface Feed {
  connection: Connection;
  state: GeneratorState | null;
  newest: Shown[];
  seen: number;
  missed: number;
  reached: { at: number[]; values: (number | null)[] };
}

const NEWEST_KEPT = 12;
const REACHED_KEPT = 240;
/** The list on the page changes a few times a second: faster than that nobody reads. */
const LIST_EVERY_MS = 400;

let feed: Feed = {
  connection: INITIAL,
  state: null,
  newest: [],
  seen: 0,
  missed: 0,
  reached: { at: [], values: [] },
};
/** The newest events, not parsed yet: the page's list is made of them when it is time. */
let recent: Row[] = [];
let listedAt = 0;
let reachedAt = 0;
const listeners = new Set<() => void>();
let stream: Stream | null = null;

function change(part: Partial<Feed>): void {
  feed = { ...feed, ...part };
  for (const listener of listeners) listener();
}

/** Also for the answer to a change, which comes before the stream tells. */
export function takeState(state: GeneratorState): void {
  const now = Date.now();
  if (recent.length && now - listedAt >= LIST_EVERY_MS) {
    listedAt = now;
    const newest = [...recent.map(shown).reverse(), ...feed.newest].slice(0, NEWEST_KEPT);
    recent = [];
    feed = { ...feed, newest };
  }
  if (now - reachedAt < 500) {
    change({ state });
    return;
  }
  reachedAt = now;
  const { at, values } = feed.reached;
  change({
    state,
    reached: {
      at: [...at.slice(-REACHED_KEPT + 1), now / 1000],
      values: [...values.slice(-REACHED_KEPT + 1), state.reached_per_s],
    },
  });
}

function takeEvents(rows: Row[]): void {
  writeToConsole(rows, isGrouped(feed.state?.target_per_s ?? 0));
  recent = [...recent, ...rows.slice(-NEWEST_KEPT)].slice(-NEWEST_KEPT);
  // Shown with the next state, which comes with every frame.
  feed = { ...feed, seen: feed.seen + rows.length };
}

function start(): Stream {
  return new Stream("/api/v1/stream", {
    onConnection: (connection) => change({ connection }),
    onEvent: ({ event, data }) => {
      if (event === "state") takeState(JSON.parse(data) as GeneratorState);
      else if (event === "events") takeEvents((JSON.parse(data) as { events: Row[] }).events);
      else if (event === "missed") {
        change({ missed: feed.missed + (JSON.parse(data) as { events: number }).events });
      }
    },
  });
}

export function useFeed(): Feed {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      stream ??= start();
      return () => listeners.delete(listener);
    },
    () => feed,
  );
}

export function retryFeed(): void {
  stream?.retryNow();
}
