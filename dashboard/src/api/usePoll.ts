import { useEffect, useState } from "react";
import { ApiError, get, type Query } from "./client";
import { onToken } from "./token";

export interface Polled<Body> {
  /** The newest answer; kept while a newer one fails, so that a hiccup does not empty the page. */
  body: Body | null;
  error: ApiError | null;
  loading: boolean;
}

/** From a failure to the next try, where nothing else makes one. */
const RETRY_MS = 5_000;

/** Asks for `path` now and, if `everyMs` is given, again and again while the page is seen; after a failure in any case. */
export function usePoll<Body>(path: string, query: Query, everyMs?: number): Polled<Body> {
  const [polled, setPolled] = useState<Polled<Body>>({ body: null, error: null, loading: true });
  const asked = JSON.stringify(query);
  useEffect(() => {
    const abort = new AbortController();
    let timer: number | undefined;
    /** It was time to ask while nobody looked. */
    let due = false;
    setPolled((before) => ({ ...before, loading: true }));
    const ask = async () => {
      window.clearTimeout(timer);
      due = document.visibilityState !== "visible";
      if (due) return;
      let pause = everyMs;
      try {
        const body = await get<Body>(path, JSON.parse(asked) as Query, abort.signal);
        setPolled({ body, error: null, loading: false });
      } catch (error) {
        if (abort.signal.aborted) return;
        setPolled((before) => ({ ...before, error: error as ApiError, loading: false }));
        if (mayPass(error)) pause ??= RETRY_MS;
      }
      if (pause && !abort.signal.aborted) timer = window.setTimeout(ask, pause);
    };
    const whenSeen = () => {
      if (due && document.visibilityState === "visible") void ask();
    };
    void ask();
    document.addEventListener("visibilitychange", whenSeen);
    const forget = onToken(() => void ask());
    return () => {
      abort.abort();
      window.clearTimeout(timer);
      document.removeEventListener("visibilitychange", whenSeen);
      forget();
    };
  }, [path, asked, everyMs]);
  return polled;
}

/** Whether the same question may be answered later: a wrong one never will be. */
function mayPass(error: unknown): boolean {
  return !(error instanceof ApiError) || error.status < 400 || error.status >= 500 || error.status === 429;
}
