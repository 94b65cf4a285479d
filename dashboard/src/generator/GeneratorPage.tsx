import { useState } from "react";
import { ApiError, put } from "../api/client";
import { Header } from "../app/Header";
import { useNow } from "../app/useNow";
import { Card, Empty } from "../parts/Card";
import { Foreign } from "../parts/Foreign";
import { LineChart } from "../parts/LineChart";
import { Tile } from "../parts/Tile";
import { clock, count, rate } from "../text/format";
import { type Feed, type GeneratorState, retryFeed, takeState, useFeed } from "./feed";

const RATES = [100, 1_000, 10_000];
const FAULTS = [
  { name: "bots", label: "Bots", what: "bursts of page views by one user in one second" },
  { name: "malformed", label: "Malformed", what: "messages that must be refused: broken JSON, bad times, …" },
] as const;

export function GeneratorPage() {
  const feed = useFeed();
  const { state } = feed;
  return (
    <>
      <Header kind="generator" links={[]}>
        <Pill feed={feed} />
      </Header>
      <main className="generator">
        <h1 className="sr-only">Generator</h1>
        <Banner feed={feed} />
        <Controls state={state} />
        <div className="tiles four">
          <Tile
            title="Target"
            value={state ? rate(state.target_per_s) : "–"}
            unit="/s"
            testId="target"
            note={state ? `topic ${state.topic}` : " "}
          />
          <Tile
            title="Reached"
            value={state ? rate(state.reached_per_s) : "–"}
            unit="/s"
            testId="reached"
            note="acknowledged by Kafka, mean of 2 s"
          />
          <Tile
            title="Sent"
            value={state ? count(state.sent) : "–"}
            testId="sent"
            note={
              state ? `${count(state.delivered)} acknowledged, ${count(state.waiting)} under way` : " "
            }
          />
          <Tile
            title="Failed"
            value={state ? count(state.failed) : "–"}
            testId="failed"
            level={state?.failed ? "bad" : undefined}
            note={state?.failed ? "not acknowledged in time" : "none"}
          />
        </div>
        <Card title="Rate reached" aside="events/s, last two minutes">
          <LineChart
            at={feed.reached.at}
            lines={[{ label: "events/s", colour: "accent", values: feed.reached.values, fill: true }]}
            height={150}
            label="Events per second that Kafka acknowledged over the last two minutes"
            moment={(seconds) => clock(new Date(seconds * 1000))}
            number={rate}
            span={lastTwoMinutes}
          />
        </Card>
        <Newest feed={feed} />
      </main>
    </>
  );
}

function lastTwoMinutes(newest: number): [number, number] {
  return [newest - 120, newest];
}

function Controls({ state }: { state: GeneratorState | null }) {
  const [error, setError] = useState("");
  const change = async (wished: object) => {
    try {
      takeState(await put<GeneratorState>("/api/v1/state", wished));
      setError("");
    } catch (problem) {
      setError(problem instanceof ApiError ? problem.message : "That could not be sent.");
    }
  };
  return (
    <Card title="Send events" aside="everybody who looks at this page shares it; it goes on until stopped">
      <div className="rates" role="group" aria-label="Rate">
        {RATES.map((perS) => (
          <button
            key={perS}
            type="button"
            className="button rate"
            aria-pressed={state?.target_per_s === perS}
            onClick={() => change({ rate: perS })}
          >
            <span className="rate-number">{count(perS)}</span>
            <span className="rate-unit">events per second</span>
          </button>
        ))}
        <button
          type="button"
          className="button rate stop"
          aria-pressed={state?.target_per_s === 0}
          onClick={() => change({ rate: 0 })}
        >
          <span className="rate-number">Stop</span>
          <span className="rate-unit">{state?.target_per_s === 0 ? "nothing is sent" : "send nothing"}</span>
        </button>
      </div>
      <fieldset className="faults">
        <legend>Faults to mix in</legend>
        {FAULTS.map((fault) => (
          <label key={fault.name}>
            <input
              type="checkbox"
              checked={state?.[fault.name] ?? false}
              onChange={(event) => change({ [fault.name]: event.target.checked })}
            />
            <span>
              {fault.label} <span className="muted">{fault.what}</span>
            </span>
          </label>
        ))}
      </fieldset>
      {error && (
        <p role="alert" className="bad-text">
          {error}
        </p>
      )}
    </Card>
  );
}

function standing(feed: Feed): { level: string; word: string } {
  if (feed.connection.phase === "waiting") return { level: "bad", word: "Cut off" };
  if (!feed.state) return { level: "busy", word: "Connecting" };
  if (feed.state.trouble) return { level: "bad", word: "Kafka away" };
  if (!feed.state.target_per_s) return { level: "busy", word: "Stopped" };
  return { level: "good", word: "Sending" };
}

function Pill({ feed }: { feed: Feed }) {
  const { level, word } = standing(feed);
  return (
    <div className={`pill ${level}`} role="status" data-testid="status" data-word={word}>
      <span className="dot" aria-hidden="true" />
      <span className="pill-word">{word}</span>
    </div>
  );
}

function Banner({ feed }: { feed: Feed }) {
  const now = useNow();
  if (feed.connection.phase === "waiting") {
    const pause = Math.ceil(Math.max(0, feed.connection.retryAt - now) / 1000);
    return (
      <div className="banner bad" data-testid="banner">
        <strong>Cut off.</strong>
        <span>
          The generator cannot be reached; whether it still sends is not known. Trying again{" "}
          {pause ? `in ${pause} s` : "now"}.
        </span>
        <button type="button" className="quiet-button" onClick={retryFeed}>
          Try now
        </button>
      </div>
    );
  }
  if (feed.state?.trouble) {
    return (
      <div className="banner bad" data-testid="banner">
        <strong>Kafka takes no events.</strong>
        <span>{feed.state.trouble}. It goes on by itself when Kafka is back.</span>
      </div>
    );
  }
  return null;
}

function Newest({ feed }: { feed: Feed }) {
  const missed = feed.missed ? `, ${count(feed.missed)} missed: this page was too slow` : "";
  return (
    <Card
      title="Newest events"
      aside={
        <span data-testid="seen">
          {count(feed.seen)} in the console since this page was opened{missed}
        </span>
      }
    >
      {feed.newest.length ? (
        <div className="scroll-x" tabIndex={0} role="group" aria-label="Newest events">
          <table className="rows newest">
            <thead>
              <tr>
                <th scope="col">Partition:offset</th>
                <th scope="col">Time</th>
                <th scope="col">User</th>
                <th scope="col">Event</th>
                <th scope="col">Page</th>
              </tr>
            </thead>
            <tbody>
              {feed.newest.map((event) => (
                <tr key={event.key} className={event.error ? "bad-text" : ""}>
                  <td className="mono">{event.place}</td>
                  {event.raw === null ? (
                    <>
                      <td className="mono">{event.time}</td>
                      <td className="mono">
                        <Foreign text={event.user} />
                      </td>
                      <td>
                        <Foreign text={event.type} />
                      </td>
                      <td>
                        <Foreign text={event.page} />
                      </td>
                    </>
                  ) : (
                    <td colSpan={4} className="mono muted">
                      <Foreign text={event.raw} />
                    </td>
                  )}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : (
        <Empty>Press a rate: every event appears in the browser's console, the newest ones here.</Empty>
      )}
    </Card>
  );
}
