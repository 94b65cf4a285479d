import { useMemo } from "react";
import { useLive } from "../api/live";
import type { Summary } from "../api/types";
import { useNow } from "../app/useNow";
import { Bars } from "../parts/Bars";
import { Card, Empty } from "../parts/Card";
import { LineChart } from "../parts/LineChart";
import { Tile } from "../parts/Tile";
import { ageNow, conditionOf } from "../text/condition";
import { clock, count, rate, wholeDuration, windowOf } from "../text/format";
import { Sessions } from "./Sessions";

const NONE = "–";
const NO_NUMBERS = "no numbers yet";
const PAGES_SHOWN = 5;

export function LiveView() {
  const live = useLive();
  const now = useNow();
  const condition = conditionOf(live, now);
  const { summary, seen } = live;
  const pages = useMemo(
    () => summary?.top_pages.pages.slice(0, PAGES_SHOWN).map((page) => ({ name: page.page_url, value: page.views })) ?? [],
    [summary],
  );
  const age = ageNow(live, now);
  return (
    <div className={`live-grid ${condition.old ? "old" : ""}`}>
      <ActiveUsers />
      <div className="tiles">
        <Tile
          title="Events"
          value={summary?.events_per_s == null ? NONE : rate(summary.events_per_s)}
          unit="/s"
          testId="events-per-s"
          note={summary?.accepted_per_s == null ? NO_NUMBERS : `${rate(summary.accepted_per_s)} /s accepted`}
        >
          <Trend at={seen.at} values={seen.rate} colour="blue" label="Events per second" />
        </Tile>
        <Tile
          title="Lag"
          value={summary ? count(summary.lag_events) : NONE}
          unit="events"
          testId="lag"
          level={summary && summary.lag_events > 0 && age > 10 ? "warn" : undefined}
          note={summary ? (summary.lag_events ? "came, and not counted yet" : "all that came is counted") : NO_NUMBERS}
        >
          <Trend at={seen.at} values={seen.lag} colour="amber" label="Events not counted yet" />
        </Tile>
        <Tile
          title="Freshness"
          value={summary ? wholeDuration(age) : NONE}
          testId="age"
          level={condition.old && summary ? "warn" : undefined}
          note={summary ? `complete as of ${clock(new Date(summary.as_of))}` : NO_NUMBERS}
        >
          <Trend at={seen.at} values={seen.age} colour="violet" label="Age of the numbers, seconds" />
        </Tile>
        <Tile
          title="Workers"
          value={summary?.workers ? `${summary.workers.up}` : NONE}
          unit={summary?.workers ? `of ${summary.workers.total}` : undefined}
          testId="workers"
          level={workersDown(summary) ? "bad" : undefined}
          note={
            <>
              {summary?.workers ? (workersDown(summary) ? "some are down: " : "all running: ") : `${NO_NUMBERS}: `}
              <a href="#/pipeline">see Pipeline</a>
            </>
          }
        />
      </div>
      <Card
        title="Top pages"
        className="top-pages"
        aside={summary && <span>views, last {windowOf(summary.top_pages.window_s)}</span>}
      >
        {pages.length ? (
          <Bars bars={pages} unit="views" label="Most viewed pages" />
        ) : (
          <Empty>{summary ? "No page was viewed in this window." : "Waiting for the first numbers."}</Empty>
        )}
      </Card>
      <Sessions summary={summary} />
    </div>
  );
}

function workersDown(summary: Summary | null): boolean {
  return !!summary?.workers && summary.workers.up < summary.workers.total;
}

/** Since this page was opened, five minutes at most. */
function Trend({ at, values, colour, label }: { at: number[]; values: (number | null)[]; colour: string; label: string }) {
  const lines = useMemo(() => [{ label, colour, values, fill: true }], [label, colour, values]);
  return <LineChart at={at} lines={lines} height={44} axes={false} label={`${label}, since this page was opened`} />;
}

/** What the line shows, for those who do not see it. */
function extremes(values: number[]): string {
  if (!values.length) return "";
  return `: between ${count(Math.min(...values))} and ${count(Math.max(...values))}, now ${count(values.at(-1) ?? 0)}`;
}

/** So that the first minute after a start is not drawn as a quarter of an hour. */
function atLeastThreeMinutes(newest: number, oldest: number): [number, number] {
  return [Math.min(oldest, newest - 180), newest];
}

function ActiveUsers() {
  const { summary } = useLive();
  const users = summary?.active_users;
  const at = useMemo(() => users?.line.map((point) => Date.parse(point.at) / 1000) ?? [], [users]);
  const lines = useMemo(
    () => [
      { label: "users", colour: "accent", values: users?.line.map((point) => point.value) ?? [], fill: true },
    ],
    [users],
  );
  return (
    <section className="card hero" aria-label="Active users">
      <div className="card-head">
        <h2>Active users</h2>
        {users && <div className="card-aside">seen in the last {windowOf(users.window_s)}</div>}
      </div>
      <p className="hero-value" data-testid="active-users">
        {users ? count(users.value) : NONE}
      </p>
      <LineChart
        at={at}
        lines={lines}
        height={210}
        label={`Active users over the last 15 minutes${extremes(users?.line.map((point) => point.value) ?? [])}`}
        span={atLeastThreeMinutes}
        moment={(seconds) => clock(new Date(seconds * 1000))}
      />
    </section>
  );
}
