import { useEffect, useState } from "react";
import { type ApiError, get, type Query } from "./client";
import { onToken } from "./token";

export interface Polled<Body> {
  /** The newest answer; kept while a newer one fails, so that a hiccup does not empty the page. */
  body: Body | null;
  error: ApiError | null;
  loading: boolean;
}

/** Asks for `path` now and, if `everyMs` is given, again and again while the page is seen. */
export function usePoll<Body>(path: string, query: Query, everyMs?: number): Polled<Body> {
  const [polled, setPolled] = useState<Polled<Body>>({ body: null, error: null, loading: true });
  const asked = JSON.stringify(query);
  useEffect(() => {
    const abort = new AbortController();
    let timer: number | undefined;
    setPolled((before) => ({ ...before, loading: true }));
    const ask = async () => {
      window.clearTimeout(timer);
      if (document.visibilityState === "visible") {
        try {
          const body = await get<Body>(path, JSON.parse(asked) as Query, abort.signal);
          setPolled({ body, error: null, loading: false });
        } catch (error) {
          if (abort.signal.aborted) return;
          setPolled((before) => ({ ...before, error: error as ApiError, loading: false }));
        }
      }
      if (everyMs && !abort.signal.aborted) timer = window.setTimeout(ask, everyMs);
    };
    void ask();
    const forget = onToken(() => void ask());
    return () => {
      abort.abort();
      window.clearTimeout(timer);
      forget();
    };
  }, [path, asked, everyMs]);
  return polled;
}
