import { type FormEvent, useEffect, useState } from "react";
import { ApiError, get } from "../api/client";
import { useLive } from "../api/live";
import type { SessionsOfUser, Summary } from "../api/types";
import { useNow } from "../app/useNow";
import { Card, Empty } from "../parts/Card";
import { Foreign } from "../parts/Foreign";
import { clock, count, wholeDuration, windowOf } from "../text/format";
import { visible } from "../text/visible";

/** How often the sessions of the user looked at are asked for again. */
const AGAIN_MS = 2_000;
const USERS_SHOWN = 6;

/** To what takes the place of the button that was pressed: the focus would be lost with the button. */
function focus(element: HTMLElement | null): void {
  element?.focus({ preventScroll: true });
}

/** Users with the most active sessions, and the sessions of one of them. */
export function Sessions({ summary }: { summary: Summary | null }) {
  const [text, setText] = useState("");
  const [user, setUser] = useState("");
  /** The list or the user is shown because a button of the other was pressed. */
  const [turned, setTurned] = useState(false);
  const show = (id: string, byButton: boolean) => {
    setTurned(byButton);
    setUser(id);
  };
  const look = (event: FormEvent) => {
    event.preventDefault();
    // No id begins or ends with a space; with other white space it may.
    show(text.replace(/^ +| +$/g, ""), false);
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
          placeholder="Find a user by id"
          value={text}
          maxLength={128}
          onChange={(event) => {
            setText(event.target.value);
            if (!event.target.value) show("", false);
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
          turned={turned}
          leave={() => {
            show("", true);
            setText("");
          }}
        />
      ) : users.length ? (
        <table className="rows" data-testid="top-users" ref={turned ? focus : undefined} tabIndex={-1}>
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
                      show(row.user_id, true);
                    }}
                  >
                    <Foreign text={row.user_id} />
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

function OneUser({ user, turned, leave }: { user: string; turned: boolean; leave: () => void }) {
  const [found, setFound] = useState<SessionsOfUser | null>(null);
  const [error, setError] = useState("");
  const now = useServersNow();
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
        setError(toldOf(problem));
        if (problem instanceof ApiError && problem.status === 422) return; // it never will be an id
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
    <div className="one-user" data-testid="one-user">
      <div className="one-user-head">
        <h3 ref={turned ? focus : undefined} tabIndex={-1}>
          <span className="mono">
            <Foreign text={user} />
          </span>{" "}
          <span className="muted" role="status">
            {found && `${count(found.active_sessions)} active ${found.active_sessions === 1 ? "session" : "sessions"}`}
          </span>
        </h3>
        <button type="button" className="quiet-button" onClick={leave}>
          Back to the list
        </button>
      </div>
      {error && (
        <p className="bad-text" role="alert">
          {error}
        </p>
      )}
      {found &&
        (found.sessions.length ? (
          <table className="rows">
            <caption className="sr-only">Sessions of {visible(user)}</caption>
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
                  <td className="mono">
                    <Foreign text={session.session_id} />
                  </td>
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

/** The server's time, ms, as its newest summary told it: this machine's clock may be wrong. */
function useServersNow(): number {
  const { summary, receivedAt } = useLive();
  const now = useNow();
  return summary ? Date.parse(summary.read_at) + Math.max(0, now - receivedAt) : now;
}

function toldOf(problem: unknown): string {
  if (!(problem instanceof ApiError)) return "The answer cannot be read.";
  return problem.status === 422 ? `That is no user id: it ${problem.message}.` : problem.message;
}

function ago(moment: string, now: number): string {
  return `${wholeDuration((now - Date.parse(moment)) / 1000)} ago`;
}
