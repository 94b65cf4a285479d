import type { Worker } from "../api/types";
import { bytes, count, duration, rate, share, shortTime } from "../text/format";

const NONE = "–";
/** Share of sampled messages with a wrong key from which on it is told. */
const ODD_SHARE = 0.05;

/** Share of the ring from which on it is shown as filling up. */
const NEARLY_FULL = 0.7;

/** One row per worker; on narrow screens one card per worker. */
export function Workers({ workers }: { workers: Worker[] }) {
  return (
    <table className="rows cards-when-narrow" data-testid="workers-table">
      <thead>
        <tr>
          <th scope="col">Worker</th>
          <th scope="col">State</th>
          <th scope="col" className="number">
            Events/s
          </th>
          <th scope="col" className="number">
            To Postgres
          </th>
          <th scope="col" className="number">
            To Redis
          </th>
          <th scope="col">Ring</th>
          <th scope="col" className="number">
            Flush, mean
          </th>
          <th scope="col" className="number">
            last
          </th>
          <th scope="col" className="number">
            Memory
          </th>
          <th scope="col" className="number">
            Up for
          </th>
          <th scope="col" className="number">
            Restarts
          </th>
        </tr>
      </thead>
      <tbody>
        {workers.map((worker) => (
          <Row key={worker.worker} worker={worker} />
        ))}
      </tbody>
    </table>
  );
}

function Row({ worker }: { worker: Worker }) {
  const level = levelOf(worker);
  return (
    <tr>
      <th scope="row" data-label="Worker">
        <span>
          {worker.worker}
          <span className="muted"> · {partitions(worker)}</span>
        </span>
      </th>
      <td data-label="State">
        <div>
          <span className={`state ${level}`}>
            <span className="dot still" aria-hidden="true" />
            {worker.state}
          </span>
          {troubles(worker).map((trouble) => (
            <span key={trouble} className="trouble">
              {trouble}
            </span>
          ))}
        </div>
      </td>
      <td className="number" data-label="Events/s">
        {worker.events_per_s == null ? NONE : rate(worker.events_per_s)}
      </td>
      <td className="number" data-label="To Postgres">
        {behind(worker.lag_events)}
      </td>
      <td className="number" data-label="To Redis">
        {behind(worker.redis_lag_events)}
      </td>
      <td data-label="Ring">
        <Ring used={worker.ring_used} slots={worker.ring_slots} />
      </td>
      <td className="number" data-label="Flush, mean">
        {worker.flush_mean_s == null ? NONE : shortTime(worker.flush_mean_s)}
      </td>
      <td className="number" data-label="Flush, last">
        {worker.flush_last_s == null ? NONE : shortTime(worker.flush_last_s)}
      </td>
      <td className="number" data-label="Memory">
        {worker.rss_bytes == null ? NONE : bytes(worker.rss_bytes)}
      </td>
      <td className="number" data-label="Up for">
        {worker.uptime_s == null ? NONE : duration(worker.uptime_s)}
      </td>
      <td className={`number ${worker.restarts ? "warn-text" : ""}`} data-label="Restarts">
        {count(worker.restarts)}
      </td>
    </tr>
  );
}

function Ring({ used, slots }: { used?: number | null; slots?: number | null }) {
  if (used == null) return <>{NONE}</>;
  if (!slots) return <>{count(used)} blocks</>;
  return (
    <span className="ring">
      <span
        className={used > slots * NEARLY_FULL ? "gauge warn" : "gauge"}
        role="meter"
        aria-label="Ring"
        aria-valuemin={0}
        aria-valuemax={slots}
        aria-valuenow={used}
        aria-valuetext={`${used} of ${slots} blocks`}
      >
        <span style={{ width: `${(100 * used) / slots}%` }} />
      </span>
      <span className="muted">
        {used}/{slots}
      </span>
    </span>
  );
}

function behind(events?: number | null): string {
  if (events == null) return NONE;
  return events ? `${count(events)} behind` : "caught up";
}

function partitions(worker: Worker): string {
  const numbers = worker.logs.map((log) => log.partition);
  return numbers.length === 1 ? `partition ${numbers[0]}` : `${numbers.length} partitions`;
}

function levelOf(worker: Worker): string {
  if (worker.state === "running" || worker.state === "paused") return troubles(worker).length ? "warn" : "good";
  return worker.state === "given up" || worker.state === "stopped" ? "bad" : "warn";
}

function troubles(worker: Worker): string[] {
  const found: string[] = [];
  if (worker.kafka_down) found.push("Kafka is away");
  if (worker.redis_away) found.push("Redis is away");
  const { sampled = 0, wrong_key: keys = 0, wrong_partition: partitions = 0 } = worker.routing ?? {};
  // Some malformed messages have odd keys, too: it is a producer's habit only when it is many.
  if (keys > sampled * ODD_SHARE) found.push(`${share(keys, sampled)} of the keys are not the user's`);
  if (partitions > sampled * ODD_SHARE) found.push(`${share(partitions, sampled)} lie in another partition`);
  return found;
}
