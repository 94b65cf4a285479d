import { type FormEvent, useEffect, useState } from "react";
import { ApiError, get } from "../api/client";
import type { SessionsOfUser, Summary } from "../api/types";
import { useNow } from "../app/useNow";
import { Card, Empty } from "../parts/Card";
import { clock, count, wholeDuration, windowOf } from "../text/format";

/** How often the sessions of the user looked at are asked for again. */
const AGAIN_MS = 2_000;
const USERS_SHOWN = 6;

/** Users with the most active sessions, and the sessions of one of them. */
export function Sessions({ summary }: { summary: Summary | null }) {
  const [text, setText] = useState("");
  const [user, setUser] = useState("");
  const look = (event: FormEvent) => {
    event.preventDefault();
    setUser(text.trim());
  };
  const users = summary?.top_users.users.slice(0, USERS_SHOWN) ?? [];
  return (
    <Card
      title="Sessions"
      className="sessions"
      aside={summary && <span>active, last {windowOf(summary.top_users.window_s)}</span>}
    >
      <form className="field-row search" role="search" onSubmit={look}>
        <input
          type="search"
          aria-label="User id"
          placeholder="Look a user up, such as user-00001"
          value={text}
          maxLength={128}
          onChange={(event) => {
            setText(event.target.value);
            if (!event.target.value) setUser("");
          }}
        />
        <button type="submit" className="button">
          Look up
        </button>
      </form>
      {user ? (
        <OneUser
          key={user}
          user={user}
          leave={() => {
            setUser("");
            setText("");
          }}
        />
      ) : users.length ? (
        <table className="rows" data-testid="top-users">
          <caption className="sr-only">Users with the most active sessions</caption>
          <thead>
            <tr>
              <th scope="col">User</th>
              <th scope="col" className="number">
                Sessions
              </th>
            </tr>
          </thead>
          <tbody>
            {users.map((row) => (
              <tr key={row.user_id}>
                <td>
                  <button
                    type="button"
                    className="link-button"
                    onClick={() => {
                      setText(row.user_id);
                      setUser(row.user_id);
                    }}
                  >
                    {row.user_id}
                  </button>
                </td>
                <td className="number">{count(row.active_sessions)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : (
        <Empty>{summary ? "No session is active." : "Waiting for the first numbers."}</Empty>
      )}
    </Card>
  );
}

function OneUser({ user, leave }: { user: string; leave: () => void }) {
  const [found, setFound] = useState<SessionsOfUser | null>(null);
  const [error, setError] = useState("");
  const now = useNow();
  useEffect(() => {
    const abort = new AbortController();
    let timer: number | undefined;
    const ask = async () => {
      try {
        const path = `/api/v1/users/${encodeURIComponent(user)}/sessions`;
        setFound(await get<SessionsOfUser>(path, {}, abort.signal));
        setError("");
      } catch (problem) {
        if (abort.signal.aborted) return;
        setError(problem instanceof ApiError ? problem.message : "The answer cannot be read.");
      }
      timer = window.setTimeout(ask, AGAIN_MS);
    };
    void ask();
    return () => {
      abort.abort();
      window.clearTimeout(timer);
    };
  }, [user]);
  return (
    <div className="one-user" aria-live="polite" data-testid="one-user">
      <div className="one-user-head">
        <div>
          <strong className="mono">{user}</strong>
          {found && (
            <span className="muted">
              {" "}
              {count(found.active_sessions)} active {found.active_sessions === 1 ? "session" : "sessions"}
            </span>
          )}
        </div>
        <button type="button" className="quiet-button" onClick={leave}>
          Back to the list
        </button>
      </div>
      {error && <p className="bad-text">{error}</p>}
      {found &&
        (found.sessions.length ? (
          <table className="rows">
            <caption className="sr-only">Sessions of {user}</caption>
            <thead>
              <tr>
                <th scope="col">Session</th>
                <th scope="col" className="number">
                  Last seen
                </th>
              </tr>
            </thead>
            <tbody>
              {found.sessions.map((session) => (
                <tr key={session.session_id}>
                  <td className="mono">{session.session_id}</td>
                  <td className="number" title={`in the ten seconds from ${session.last_seen}`}>
                    {clock(new Date(session.last_seen))}
                    <span className="muted"> · {ago(session.last_seen, now)}</span>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        ) : (
          <Empty>No session of this user was active in the last {windowOf(found.window_s)}.</Empty>
        ))}
    </div>
  );
}

function ago(moment: string, now: number): string {
  return `${wholeDuration((now - Date.parse(moment)) / 1000)} ago`;
}
