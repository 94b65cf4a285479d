import { expect, test } from "vitest";
import { type Connection, FIRST_PAUSE_MS, INITIAL, LONGEST_PAUSE_MS, next, pauseMs } from "../src/api/connection";

const failed = (state: Connection, at = 0) => next(state, { type: "failed", reason: "r", at, chance: 0.5 });

test("pauses double, are bounded, and are spread by a quarter to either side", () => {
  expect([1, 2, 3].map((failures) => pauseMs(failures, 0.5))).toEqual([
    FIRST_PAUSE_MS,
    2 * FIRST_PAUSE_MS,
    4 * FIRST_PAUSE_MS,
  ]);
  expect(pauseMs(1_000, 0.5)).toBe(LONGEST_PAUSE_MS);
  expect(pauseMs(1, 0)).toBe(0.75 * FIRST_PAUSE_MS);
  expect(pauseMs(1, 1)).toBe(1.25 * FIRST_PAUSE_MS);
});

test("failures are counted until a connection opens, and from then anew", () => {
  let state: Connection = INITIAL;
  for (const expected of [1, 2, 3]) {
    state = failed(state, 1_000);
    expect(state).toMatchObject({ phase: "waiting", failures: expected });
    state = next(state, { type: "retry" });
    expect(state).toEqual({ phase: "connecting", failures: expected });
  }
  state = failed(next(state, { type: "opened" }), 1_000);
  expect(state).toMatchObject({ phase: "waiting", failures: 1, retryAt: 1_000 + FIRST_PAUSE_MS });
});

test("a 401 locks, says whether a token was refused, and another try begins anew", () => {
  expect(next(INITIAL, { type: "unauthorised", hadToken: false })).toEqual({ phase: "locked", refused: false });
  const locked = next(INITIAL, { type: "unauthorised", hadToken: true });
  expect(locked).toEqual({ phase: "locked", refused: true });
  expect(next(locked, { type: "retry" })).toEqual(INITIAL);
});

test("a retry leaves an open connection alone", () => {
  expect(next({ phase: "open" }, { type: "retry" })).toEqual({ phase: "open" });
});
