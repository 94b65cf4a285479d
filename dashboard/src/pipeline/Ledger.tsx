import { useMemo, useState } from "react";
import type { Ledger as LedgerReply } from "../api/types";
import { usePoll } from "../api/usePoll";
import { useNow } from "../app/useNow";
import { rfc3339 } from "../history/ranges";
import { Card, Empty } from "../parts/Card";
import { Download } from "../parts/Download";
import { LineChart } from "../parts/LineChart";
import { count, share, shortMoment, words } from "../text/format";
import { lineOf, sumOf } from "./sum";

const RANGES = [
  { label: "last 15 min", seconds: 900 },
  { label: "last hour", seconds: 3_600 },
  { label: "last 24 hours", seconds: 86_400 },
];

export function Ledger() {
  const [seconds, setSeconds] = useState(3_600);
  const now = useNow(5_000);
  const query = { from: rfc3339(new Date(now - seconds * 1000)) };
  const { body, error } = usePoll<LedgerReply>("/api/v1/ledger", query);
  return (
    <Card
      title="Ledger"
      className={error ? "old" : ""}
      aside={
        <div className="aside-controls">
          <select
            aria-label="Range of the ledger"
            value={seconds}
            onChange={(event) => setSeconds(Number(event.target.value))}
          >
            {RANGES.map((range) => (
              <option key={range.seconds} value={range.seconds}>
                {range.label}
              </option>
            ))}
          </select>
          <Download path="/api/v1/ledger" query={query} name="hotpath-ledger.csv" />
        </div>
      }
    >
      {error && <p className="bad-text">{error.message}</p>}
      {body && <Balance ledger={body} />}
    </Card>
  );
}

function Balance({ ledger }: { ledger: LedgerReply }) {
  const sum = useMemo(() => sumOf(ledger.minutes), [ledger]);
  const line = useMemo(() => lineOf(ledger, Date.now()), [ledger]);
  const lines = useMemo(
    () => [
      {
        label: "received",
        colour: "blue",
        fill: true,
        values: line.received,
      },
      {
        label: "not accepted",
        colour: "amber",
        right: true,
        values: line.refused,
      },
    ],
    [line],
  );
  if (!sum.received) return <Empty>Nothing was committed in this range.</Empty>;
  const some = sum.refused.filter((part) => part.value);
  return (
    <>
      <p className="equation" data-testid="equation">
        <Term name="received" value={sum.received} />
        <span className="operator">=</span>
        <Term name="accepted" value={sum.accepted} of={sum.received} colour="green" />
        {some.map((part) => (
          <span key={part.name} className="addend">
            <span className="operator">+</span>
            <Term name={words(part.name)} value={part.value} of={sum.received} />
          </span>
        ))}
        <span className={sum.holds ? "verdict good-text" : "verdict bad-text"} data-testid="verdict">
          {sum.holds ? "✓ both sides are equal" : "✗ the sides differ"}
        </span>
      </p>
      <LineChart
        at={line.at}
        lines={lines}
        height={150}
        label="Messages received and not accepted per minute"
        moment={(moment) => shortMoment(new Date(moment * 1000))}
      />
      <p className="chart-key muted">
        <i className="swatch blue" />
        received per minute <i className="swatch amber" />
        of these not accepted (right axis)
      </p>
      {ledger.losses.map((loss) => (
        <p key={`${loss.at} ${loss.topic} ${loss.partition} ${loss.first_offset}`} className="bad-text">
          Lost: offsets {count(loss.first_offset)} to {count(loss.next_offset - 1)} of {loss.topic}, partition{" "}
          {loss.partition}: {loss.reason} ({shortMoment(new Date(loss.at))})
        </p>
      ))}
    </>
  );
}

function Term({ name, value, of, colour }: { name: string; value: number; of?: number; colour?: string }) {
  return (
    <span className={`term ${colour ? `${colour}-text` : ""}`}>
      <span className="term-value">{count(value)}</span>
      <span className="term-name">
        {name}
        {of !== undefined && <span> · {share(value, of)}</span>}
      </span>
    </span>
  );
}
