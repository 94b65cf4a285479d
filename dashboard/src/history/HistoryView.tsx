import { useEffect, useMemo, useState } from "react";
import type { History } from "../api/types";
import { usePoll } from "../api/usePoll";
import { useNow } from "../app/useNow";
import { Bars } from "../parts/Bars";
import { Card, Empty } from "../parts/Card";
import { Download } from "../parts/Download";
import { LineChart } from "../parts/LineChart";
import { count, duration, rate, share, shortCount, shortMoment } from "../text/format";
import { RangePicker } from "./RangePicker";
import { hashOf, PRESETS, type Range, rangeIn, rfc3339, totals } from "./ranges";

/** A preset's range ends now: it moves on so often. */
const MOVES_MS = 10_000;

export default function HistoryView() {
  const [range, setRange] = useRange();
  const now = useNow(MOVES_MS);
  const preset = PRESETS.find((known) => "preset" in range && known.name === range.preset);
  const query =
    "from" in range
      ? { from: range.from, to: range.to }
      : { from: rfc3339(new Date(now - (preset?.seconds ?? 3_600) * 1000)) };
  const { body, error, loading } = usePoll<History>("/api/v1/history", query);
  return (
    <div className="stack">
      <div className="toolbar">
        <RangePicker range={range} choose={setRange} />
        <div className="aside-controls">
          <Download path="/api/v1/history" query={query} name="hotpath-history.csv" className="button" />
        </div>
      </div>
      {error && (
        <div className="banner bad" role="alert">
          <strong>The history cannot be read.</strong> <span>{error.message}</span>
        </div>
      )}
      {body ? <RangeOf history={body} old={error !== null} /> : !error && loading && <p className="muted loading">Loading …</p>}
    </div>
  );
}

/** The range, which the address holds. */
function useRange(): [Range, (range: Range) => void] {
  const [range, setRange] = useState(() => rangeIn(window.location.hash));
  useEffect(() => {
    const follow = () => setRange(rangeIn(window.location.hash));
    window.addEventListener("hashchange", follow);
    return () => window.removeEventListener("hashchange", follow);
  }, []);
  const choose = (chosen: Range) => {
    window.history.replaceState(null, "", hashOf(chosen));
    setRange(chosen);
  };
  return [range, choose];
}

const LINES = [
  { name: "events", label: "received", colour: "blue", right: false },
  { name: "accepted", label: "accepted", colour: "accent", right: false },
  { name: "users", label: "users", colour: "violet", right: true },
] as const;

/** A step that is one of something is told without the number. */
const UNITS: Record<number, string> = { 60: "minute", 3_600: "hour", 86_400: "day" };

const NOT_COUNTED = "not counted: it would take too long";

/** `old`: an answer to an earlier question, the last one having failed. */
function RangeOf({ history, old }: { history: History; old: boolean }) {
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const { steps, step_s: stepS } = history;
  // A step under way would look like a fall.
  const whole = useMemo(
    () => steps.filter((step) => Date.parse(step.at) + stepS * 1000 <= Date.now()),
    [steps, stepS],
  );
  const known = useMemo(() => LINES.filter((line) => steps.some((step) => step[line.name] !== null)), [steps]);
  const counted = known.some((line) => line.name === "users");
  const at = useMemo(() => whole.map((step) => Date.parse(step.at) / 1000), [whole]);
  const lines = useMemo(
    () =>
      known
        .filter((line) => !hidden.has(line.name))
        .map((line) => ({
          ...line,
          fill: line.name === "events",
          values: whole.map((step) => step[line.name]),
        })),
    [whole, hidden, known],
  );
  const sum = useMemo(() => totals(steps, stepS), [steps, stepS]);
  const pages = history.top_pages?.map((page) => ({ name: page.page_url, value: page.views }));
  return (
    <div className={`stack ${old ? "old" : ""}`}>
      <div className="tiles four">
        <Figure
          name="Received"
          value={sum.events === null ? "–" : large(sum.events)}
          note={sum.events === null ? NOT_COUNTED : undefined}
        />
        <Figure name="Accepted" value={large(sum.accepted)} note={shareOf(sum.accepted, sum.events)} />
        <Figure
          name="Busiest step"
          value={sum.peakPerS === null ? "–" : `${rate(sum.peakPerS)} /s`}
          note={sum.peakPerS === null ? NOT_COUNTED : `mean of ${duration(stepS)}`}
        />
        <Figure
          name="Most users"
          value={sum.peakUsers === null ? "–" : large(sum.peakUsers)}
          note={counted ? `in ${duration(stepS)}` : NOT_COUNTED}
        />
      </div>
      <Card
        title={`${counted ? "Events and users" : "Events"} per ${UNITS[stepS] ?? duration(stepS)}`}
        aside={
          <div className="legend" role="group" aria-label="Lines">
            {known.map((line) => (
              <button
                key={line.name}
                type="button"
                aria-pressed={!hidden.has(line.name)}
                onClick={() => setHidden(toggled(hidden, line.name))}
              >
                <i className={`swatch ${line.colour}`} />
                {line.label}
                {line.right && " (right axis)"}
              </button>
            ))}
          </div>
        }
      >
        {sum.events || sum.accepted ? (
          <LineChart
            at={at}
            lines={lines}
            height={300}
            label={`Events and users from ${shortMoment(new Date(history.from))} to ${shortMoment(new Date(history.to))}; the table below has the numbers`}
            moment={(seconds) => shortMoment(new Date(seconds * 1000))}
          />
        ) : (
          <Empty>Nothing came in this range.</Empty>
        )}
        <Table history={history} />
      </Card>
      <Card title="Top pages of the range" aside="page views, by the events' own time">
        {pages?.length ? (
          <Bars bars={pages} unit="views" label="Most viewed pages of the range" />
        ) : (
          <Empty>{pages ? "No page was viewed in this range." : "Not counted: it would take too long. A shorter range may do."}</Empty>
        )}
      </Card>
    </div>
  );
}

function Table({ history }: { history: History }) {
  const steps = [...history.steps].reverse();
  return (
    <details className="as-table">
      <summary>The same as a table</summary>
      <div className="scroll-both" tabIndex={0} role="group" aria-label="Steps">
        <table className="rows">
          <thead>
            <tr>
              {["Begin", "Received", "Accepted", "Page views", "Users"].map((name, index) => (
                <th key={name} scope="col" className={index ? "number" : ""}>
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {steps.map((step) => (
              <tr key={step.at}>
                <td>{shortMoment(new Date(step.at))}</td>
                {[step.events, step.accepted, step.page_views, step.users].map((value, index) => (
                  // The columns stand where they stand.
                  <td key={index} className="number">
                    {value === null ? "–" : count(value)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}

function Figure({ name, value, note }: { name: string; value: string; note?: string }) {
  return (
    <div className="card figure">
      <h2>{name}</h2>
      <p className="tile-value">{value}</p>
      <p className="tile-note">{note ?? "\u00a0"}</p>
    </div>
  );
}

/** Nothing where it would be more than all: received is by the time of storing, accepted by the events' own. */
function shareOf(accepted: number, received: number | null): string | undefined {
  return received === null || accepted > received ? undefined : share(accepted, received);
}

/** So that a month of events fits into a tile of a narrow screen. */
function large(value: number): string {
  return value < 10_000_000 ? count(value) : shortCount(value);
}

function toggled(names: ReadonlySet<string>, name: string): Set<string> {
  const next = new Set(names);
  if (!next.delete(name)) next.add(name);
  return next;
}
