// What the page says of its own numbers: are they live, and if not, why. Pure.

import type { Connection } from "../api/connection";
import type { Summary, Trouble } from "../api/types";
import { count, wholeDuration } from "./format";

export type Level = "good" | "busy" | "warn" | "bad";

export interface Condition {
  level: Level;
  /** One or two words for the pill. */
  word: string;
  /** One sentence for the banner; empty when there is nothing to say. */
  sentence: string;
  /** Numbers on the page are those of an earlier moment: show them as such. */
  old: boolean;
}

/** Event time is in whole seconds and flushes take some: an age up to this is live. */
const LIVE_AGE_S = 10;

export interface Known {
  connection: Connection;
  summary: Summary | null;
  receivedAt: number;
  trouble: Trouble["error"] | null;
}

/** How old the shown numbers are now, seconds. */
export function ageNow(known: Pick<Known, "summary" | "receivedAt">, now: number): number {
  const { summary, receivedAt } = known;
  if (!summary) return Number.POSITIVE_INFINITY;
  // Both by the server's clock; what has passed since then by this one's: no two clocks need agree.
  const whenRead = Math.max(0, Date.parse(summary.read_at) - Date.parse(summary.as_of)) / 1000;
  return whenRead + summary.age_s + Math.max(0, now - receivedAt) / 1000;
}

export function conditionOf(known: Known, now: number): Condition {
  const { connection, summary, trouble } = known;
  const shown = summary ? ` The numbers shown are ${wholeDuration(ageNow(known, now))} old.` : "";
  if (connection.phase === "locked") {
    return { level: "bad", word: "Locked", sentence: "This API asks for a token.", old: true };
  }
  if (connection.phase === "waiting" || (connection.phase === "connecting" && connection.failures > 0)) {
    const pause = connection.phase === "waiting" ? Math.max(0, connection.retryAt - now) / 1000 : 0;
    const when = pause > 0.5 ? `Trying again in ${Math.ceil(pause)} s.` : "Trying again now.";
    const why = connection.phase === "waiting" ? capital(connection.reason) : "The server cannot be reached";
    return { level: "bad", word: "Cut off", sentence: `${why}. ${when}${shown}`, old: true };
  }
  if (trouble) return troubled(trouble, shown);
  if (!summary) return { level: "busy", word: "Connecting", sentence: "", old: false };
  return healthOf(summary, ageNow(known, now), now - known.receivedAt);
}

function troubled(trouble: Trouble["error"], shown: string): Condition {
  if (trouble.code === "views_rebuilding") {
    const sentence = `The live numbers are being rebuilt from Postgres; they come back by themselves.${shown}`;
    return { level: "warn", word: "Rebuilding", sentence, old: true };
  }
  if (trouble.code === "views_incomplete") {
    const sentence = `The workers are reading up to the present.${shown}`;
    return { level: "warn", word: "Starting", sentence, old: true };
  }
  if (trouble.code === "redis_unavailable") {
    const sentence = `Redis, which holds the live numbers, does not answer. Events are still stored.${shown}`;
    return { level: "bad", word: "No live numbers", sentence, old: true };
  }
  return { level: "bad", word: "Unavailable", sentence: `${capital(trouble.message)}.${shown}`, old: true };
}

function healthOf(summary: Summary, age: number, silentMs: number): Condition {
  if (summary.stale || silentMs > 5_000) {
    const sentence = `The live numbers cannot be read just now. Those shown are ${wholeDuration(age)} old.`;
    return { level: "warn", word: "Stale", sentence, old: true };
  }
  if (summary.workers && summary.workers.up < summary.workers.total) {
    const down = summary.workers.total - summary.workers.up;
    const sentence = `${down} of ${summary.workers.total} workers ${down === 1 ? "is" : "are"} down; see Pipeline.`;
    return { level: "warn", word: "Worker down", sentence, old: age > LIVE_AGE_S };
  }
  if (age > LIVE_AGE_S) {
    const waiting = summary.lag_events ? `${count(summary.lag_events)} events are not counted yet.` : "";
    const sentence = `The numbers are ${wholeDuration(age)} behind the present. ${waiting}`.trim();
    return { level: "warn", word: "Behind", sentence, old: true };
  }
  return { level: "good", word: "Live", sentence: "", old: false };
}

function capital(text: string): string {
  return (text.charAt(0).toUpperCase() + text.slice(1)).replace(/[.]$/, "");
}
