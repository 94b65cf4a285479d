// The ranges that the history can be asked for. Pure.

export interface Preset {
  name: string;
  label: string;
  seconds: number;
}

export const PRESETS: Preset[] = [
  { name: "15m", label: "15 min", seconds: 900 },
  { name: "1h", label: "1 hour", seconds: 3_600 },
  { name: "6h", label: "6 hours", seconds: 21_600 },
  { name: "24h", label: "24 hours", seconds: 86_400 },
  { name: "7d", label: "7 days", seconds: 604_800 },
  { name: "30d", label: "30 days", seconds: 2_592_000 },
];

/** The last so long, or from one moment to another. */
export type Range = { preset: string } | { from: string; to: string };

const USUAL: Range = { preset: "1h" };

/** The range that an address's hash names, so that it can be kept, sent and reloaded; the usual one if it names none. */
export function rangeIn(hash: string): Range {
  const asked = new URLSearchParams(hash.split("?")[1] ?? "");
  const [preset, from, to] = [asked.get("range"), asked.get("from"), asked.get("to")];
  if (PRESETS.some((known) => known.name === preset)) return { preset: preset as string };
  if (!from || !to || fault(from, to)) return USUAL;
  return { from: rfc3339(new Date(from)), to: rfc3339(new Date(to)) };
}

export function hashOf(range: Range): string {
  return `#/history?${"from" in range ? `from=${range.from}&to=${range.to}` : `range=${range.preset}`}`;
}

/** A moment as the API takes it: RFC 3339 in UTC, whole seconds. */
export function rfc3339(moment: Date): string {
  return `${moment.toISOString().slice(0, 19)}Z`;
}

/** A moment as an input of type datetime-local takes it: in the reader's zone, no zone written. */
export function localInput(moment: Date): string {
  const local = new Date(moment.getTime() - moment.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 16);
}

/** What the API answers at most at once. */
const LONGEST_DAYS = 92;

/** What is wrong with a range that was typed in; empty when nothing is. */
export function fault(from: string, to: string, now: number = Date.now()): string {
  const [begin, end] = [Date.parse(from), Date.parse(to)];
  if (Number.isNaN(begin) || Number.isNaN(end)) return "Both moments are needed.";
  if (begin >= end) return "The range must begin before it ends.";
  if (begin > now) return "The range must begin before now.";
  if (end - begin > LONGEST_DAYS * 86_400_000) return `The range may have ${LONGEST_DAYS} days at most.`;
  return "";
}

export interface Totals {
  /** Null what was not counted in any step. */
  events: number | null;
  accepted: number;
  peakPerS: number | null;
  peakUsers: number | null;
}

/** Sums and peaks of steps; the last step may be under way and never is the peak per second by being short. */
export function totals(
  steps: { events: number | null; accepted: number; users: number | null }[],
  stepS: number,
): Totals {
  const sum: Totals = { events: null, accepted: 0, peakPerS: null, peakUsers: null };
  for (const step of steps) {
    sum.accepted += step.accepted;
    if (step.events !== null) {
      sum.events = (sum.events ?? 0) + step.events;
      sum.peakPerS = Math.max(sum.peakPerS ?? 0, step.events / stepS);
    }
    if (step.users !== null) sum.peakUsers = Math.max(sum.peakUsers ?? 0, step.users);
  }
  return sum;
}
