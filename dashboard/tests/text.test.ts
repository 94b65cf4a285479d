import { expect, test } from "vitest";
import type { LedgerMinute, Summary } from "../src/api/types";
import { batch } from "./rows";
import { isGrouped, place, shown, writeToConsole } from "../src/generator/batches";
import { fault, hashOf, rangeIn, rfc3339, totals } from "../src/history/ranges";
import { dump, fromBase64, preview } from "../src/pipeline/bytes";
import { lineOf, sumOf } from "../src/pipeline/sum";
import { type Known, ageNow, conditionOf } from "../src/text/condition";
import { bytes, count, duration, rate, share, shortCount, shortTime } from "../src/text/format";
import { visible } from "../src/text/visible";

test("numbers are written for people", () => {
  expect(count(1_234_567)).toBe("1,234,567");
  expect([99_999, 123_456, 1_234_567].map(shortCount)).toEqual(["99,999", "123K", "1.23M"]);
  expect([0, 0.25, 9.94, 9.96, 1_000].map(rate)).toEqual(["0", "0.3", "9.9", "10", "1,000"]);
  expect([0.4, 12, 60, 185, 3_600, 7_440, 90_000].map(duration)).toEqual([
    "0.4 s",
    "12 s",
    "1 min",
    "3 min 5 s",
    "1 h",
    "2 h 4 min",
    "1 d 1 h",
  ]);
  expect([0.00034, 0.0123, 0.2, 1.2].map(shortTime)).toEqual(["340 µs", "12.3 ms", "200 ms", "1.2 s"]);
  expect([share(0, 10), share(1, 1_000_000), share(1, 300), share(1, 3)]).toEqual(["0 %", "< 0.01 %", "0.33 %", "33 %"]);
  expect([512, 2_048, 219_000_000].map(bytes)).toEqual(["512 B", "2.0 KiB", "209 MiB"]);
});

const SUMMARY: Summary = {
  as_of: "2026-01-01T12:00:00Z",
  read_at: "2026-01-01T12:00:02Z",
  age_s: 0,
  lag_events: 0,
  stale: false,
  active_users: { value: 1, window_s: 300, line: [] },
  top_pages: { window_s: 900, pages: [] },
  top_users: { window_s: 300, users: [] },
  events_per_s: 1,
  accepted_per_s: 1,
  workers: { up: 2, total: 2 },
};
const LIVE: Known = { connection: { phase: "open" }, summary: SUMMARY, receivedAt: 50_000, trouble: null };

test("an age is by the server's clock when read, and grows by this one's from then on", () => {
  expect(ageNow(LIVE, 50_000)).toBe(2);
  expect(ageNow(LIVE, 53_000)).toBe(5);
  expect(ageNow({ summary: { ...SUMMARY, age_s: 30 }, receivedAt: 0 }, 0)).toBe(32);
  // A clock of this machine that is put back makes nothing younger.
  expect(ageNow(LIVE, 0)).toBe(2);
});

test("the page says what its numbers are worth", () => {
  const word = (known: Partial<Known>, now = 50_000) => conditionOf({ ...LIVE, ...known }, now).word;
  const trouble = (code: string) => ({ trouble: { code, message: "m" } });
  expect(word({})).toBe("Live");
  expect(word({ summary: null })).toBe("Connecting");
  expect(word({ summary: { ...SUMMARY, stale: true } })).toBe("Stale");
  expect(word({}, 58_000)).toBe("Stale");
  expect(word({ summary: { ...SUMMARY, read_at: "2026-01-01T12:00:11Z" } })).toBe("Behind");
  expect(word({ summary: { ...SUMMARY, workers: { up: 1, total: 2 } } })).toBe("Worker down");
  expect(word(trouble("views_rebuilding"))).toBe("Rebuilding");
  expect(word(trouble("views_incomplete"))).toBe("Starting");
  expect(word(trouble("redis_unavailable"))).toBe("No live numbers");
  expect(word(trouble("another"))).toBe("Unavailable");
  expect(word({ connection: { phase: "waiting", failures: 1, retryAt: 0, reason: "r" } })).toBe("Cut off");
  expect(word({ connection: { phase: "connecting", failures: 1 } })).toBe("Cut off");
  expect(word({ connection: { phase: "locked", refused: false } })).toBe("Locked");
});

test("a sentence tells how far behind, and how many events are not counted", () => {
  const behind = { ...SUMMARY, read_at: "2026-01-01T12:01:00Z", lag_events: 12_345 };
  expect(conditionOf({ ...LIVE, summary: behind }, 50_000).sentence).toBe(
    "The numbers are 1 min behind the present. 12,345 events are not counted yet.",
  );
});

test("raw bytes are shown as they are", () => {
  expect(visible("a\u0000\n\u007f\u202e é")).toBe("a‹NUL›‹LF›‹DEL›‹U+202E› é");
  expect(visible("\u00a0\u00ad\u2800\u3164\u{e0041}")).toBe("‹U+00A0›‹U+00AD›‹U+2800›‹U+3164›‹U+E0041›");
  expect(dump(fromBase64("AEFCfw=="))).toBe(`0000  ${"00 41 42 7f".padEnd(47)}  .AB.`);
  expect(dump(new Uint8Array(17)).split("\n")).toHaveLength(2);
});

test("a message always has something to see and to press", () => {
  const message = (text: string, size = text.length) => ({
    ...{ payload: btoa(text), payload_text: text, payload_size: size },
  });
  expect(preview(message(""))).toBe("(nothing)");
  expect(preview(message(" "))).toBe("(1 space)");
  expect(preview(message("   "))).toBe("(3 spaces)");
  expect(preview(message("  ", 70_000))).toBe("(2 spaces …)");
  expect(preview(message(" \n"))).toBe(" ‹LF›");
  expect(preview(message("{"))).toBe("{");
  expect(preview({ ...message("\u00ff"), payload_text: null })).toBe("ff");
  expect(preview({ ...message("\u00ff".repeat(17)), payload_text: null })).toBe(`${"ff ".repeat(16)}…`);
});

test("the ledger's two sides are compared, not assumed", () => {
  const minute = {
    ...{ at: "", received: 10, accepted: 7, too_large: 0, empty: 0, not_json: 1, not_object: 0 },
    ...{ missing_field: 0, wrong_type: 0, bad_value: 0, bad_timestamp: 0, future: 0, late: 1, bot: 1 },
  };
  expect(sumOf([minute, minute])).toMatchObject({ received: 20, accepted: 14, holds: true });
  expect(sumOf([minute, { ...minute, bot: 0 }]).holds).toBe(false);
});

test("minutes without a flush are minutes of nothing, and one under way is not drawn", () => {
  const minute = { received: 10, accepted: 9 } as LedgerMinute;
  const ledger = {
    ...{ from: "2026-01-01T12:00:00Z", to: "2026-01-01T12:04:00Z", step_s: 60, losses: [],
    as_of: "2026-01-01T12:04:00Z", lag_events: 0 },
    minutes: [
      { ...minute, at: "2026-01-01T12:01:00Z" },
      { ...minute, at: "2026-01-01T12:03:00Z" },
    ],
  };
  const now = Date.parse("2026-01-01T12:03:30Z");
  expect(lineOf(ledger, now)).toMatchObject({ received: [0, 10, 0], refused: [0, 1, 0] });
  expect(lineOf(ledger, now + 60_000).received).toEqual([0, 10, 0, 10]);
});

test("ranges are checked before they are asked for", () => {
  expect(fault("", "2026-01-01T00:00")).not.toBe("");
  expect(fault("2026-01-02T00:00", "2026-01-01T00:00")).not.toBe("");
  expect(fault("2026-01-01T00:00", "2026-01-02T00:00")).toBe("");
  expect(fault("2026-01-03T00:00", "2026-01-04T00:00", Date.parse("2026-01-02T00:00"))).toContain("before now");
  expect(fault("2026-01-01T00:00", "2026-05-01T00:00")).toContain("92 days");
  expect(rfc3339(new Date(0))).toBe("1970-01-01T00:00:00Z");
  const steps = [
    { events: 600, accepted: 500, users: null },
    { events: 60, accepted: 60, users: 9 },
  ];
  expect(totals(steps, 60)).toEqual({ events: 660, accepted: 560, peakPerS: 10, peakUsers: 9 });
  // What was not counted is not nothing.
  const unknown = [{ events: null, accepted: 5, users: null }];
  expect(totals(unknown, 60)).toEqual({ events: null, accepted: 5, peakPerS: null, peakUsers: null });
});

test("every event reaches the console, singly or in one folded group", () => {
  const rows = batch(500);
  const said: string[] = [];
  const out = { log: (text: string) => said.push(text), groupCollapsed() {}, groupEnd() {} } as unknown as Console;
  writeToConsole(rows, isGrouped(1_000), out);
  expect(said).toHaveLength(500);
  writeToConsole(rows, isGrouped(10_000), out);
  expect(said).toHaveLength(501);
  expect(said[500]?.split("\n")).toEqual(said.slice(0, 500));
});

test("an event that Kafka refused, and one that is no event, say so in the list", () => {
  expect(place([3, null, "x", "timed out"])).toBe("3:refused");
  expect(shown([3, null, "x", "timed out"])).toMatchObject({ raw: "x", error: "timed out" });
  expect(shown([3, 9, null])).toMatchObject({ place: "3:9", raw: "(empty)" });
  expect(shown(batch(1)[0]!)).toMatchObject({ user: "u0", type: "page_view", page: "/p", time: "12:00:00", raw: null });
});

test("the address holds the range, and one that it cannot hold is the usual one", () => {
  const ranges = [{ preset: "7d" }, { from: "2026-01-01T00:00:00Z", to: "2026-01-02T00:00:00Z" }];
  for (const range of ranges) expect(rangeIn(hashOf(range))).toEqual(range);
  const wrong = ["", "#/history", "#/history?range=x", "#/history?from=<b>&to=2", "#/history?from=2026-01-02&to=2026-01-01"];
  for (const hash of wrong) expect(rangeIn(hash)).toEqual({ preset: "1h" });
});
