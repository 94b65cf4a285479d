// The ledger's sentence: received = accepted + each class. Pure.

import { type Ledger, type LedgerMinute, REFUSED, type Refused } from "../api/types";

export interface Sum {
  received: number;
  accepted: number;
  refused: { name: Refused; value: number }[];
  /** Whether the two sides are equal, counted here and not taken on trust. */
  holds: boolean;
}

export function sumOf(minutes: LedgerMinute[]): Sum {
  const total = (name: "received" | "accepted" | Refused) =>
    minutes.reduce((sum, minute) => sum + minute[name], 0);
  const received = total("received");
  const accepted = total("accepted");
  const refused = REFUSED.map((name) => ({ name, value: total(name) }));
  const right = refused.reduce((sum, part) => sum + part.value, accepted);
  return { received, accepted, refused, holds: received === right };
}

export interface LedgerLine {
  /** Seconds since 1970. */
  at: number[];
  received: number[];
  refused: number[];
}

/** Every step of the ledger's range in order: one in which nothing was committed is zero, one under way is left out. */
export function lineOf(ledger: Ledger, now: number): LedgerLine {
  const known = new Map(ledger.minutes.map((minute) => [Date.parse(minute.at), minute]));
  const line: LedgerLine = { at: [], received: [], refused: [] };
  const stepMs = ledger.step_s * 1000;
  const end = Math.min(Date.parse(ledger.to), now);
  for (let at = Date.parse(ledger.from); at + stepMs <= end; at += stepMs) {
    const minute = known.get(at);
    line.at.push(at / 1000);
    line.received.push(minute?.received ?? 0);
    line.refused.push(minute ? minute.received - minute.accepted : 0);
  }
  return line;
}
