// How events get into the console and the page's list. Pure, but for the console it is given.

/** [partition, offset, value], or [partition, null, value, error] of one that Kafka did not take. */
export type Row = [partition: number, offset: number | null, value: string | null, error?: string];

/** Events a second up to which each gets a console line of its own. */
export const SINGLY_MAX_PER_S = 2_000;

/** Batches come ten times a second; one after a pause may be larger without the rate being so. */
export function isGrouped(targetPerS: number): boolean {
  return targetPerS > SINGLY_MAX_PER_S;
}

export function place(row: Row): string {
  return row[1] === null ? `${row[0]}:refused` : `${row[0]}:${row[1]}`;
}

/** Writes every event of a batch: one line each, or all of them inside one folded group. */
export function writeToConsole(rows: Row[], grouped: boolean, out: Console = console): void {
  if (!grouped) {
    for (const row of rows) out.log(line(row));
    return;
  }
  out.groupCollapsed(`${rows.length} events, ${place(rows[0] as Row)} to ${place(rows[rows.length - 1] as Row)}`);
  out.log(rows.map(line).join("\n"));
  out.groupEnd();
}

function line(row: Row): string {
  const value = row[2] ?? "(no value)";
  return row[3] ? `${place(row)} FAILED ${row[3]} ${value}` : `${place(row)} ${value}`;
}

export interface Shown {
  key: number;
  place: string;
  time: string;
  type: string;
  user: string;
  page: string;
  /** The raw text where it is not an event. */
  raw: string | null;
  error: string | null;
}

let keys = 0;

/** An event as the page's list shows it. */
export function shown(row: Row): Shown {
  const [, , value, error] = row;
  const base = { key: (keys += 1), place: place(row), error: error ?? null };
  const fields = parsed(value);
  if (!fields) return { ...base, time: "", type: "", user: "", page: "", raw: value || "(empty)" };
  const text = (name: string) => (typeof fields[name] === "string" ? (fields[name] as string) : "");
  return {
    ...base,
    time: text("timestamp").slice(11, 19),
    type: text("event_type"),
    user: text("user_id"),
    page: text("page_url"),
    raw: null,
  };
}

function parsed(value: string | null): Record<string, unknown> | null {
  try {
    const found: unknown = JSON.parse(value ?? "");
    return typeof found === "object" && found !== null && !Array.isArray(found)
      ? (found as Record<string, unknown>)
      : null;
  } catch {
    return null;
  }
}
