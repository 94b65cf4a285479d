// A stream that stays: it reconnects by itself, at once when the network or the page comes back.

import { type Connection, INITIAL, next, type Happening } from "./connection";
import { authorisation, onToken } from "./token";
import { EventParser, type ServerEvent } from "./sse";

/** Streams send something at least every few seconds; one that is silent for so long is dead. */
const SILENCE_MAX_MS = 12_000;

export interface StreamHandlers {
  onEvent(event: ServerEvent): void;
  onConnection(connection: Connection): void;
}

export class Stream {
  private connection: Connection = INITIAL;
  private abort: AbortController | null = null;
  private timer: number | undefined;
  private forgetToken: () => void;

  constructor(
    private readonly path: string,
    private readonly handlers: StreamHandlers,
  ) {
    this.forgetToken = onToken(this.retryNow);
    window.addEventListener("online", this.retryNow);
    document.addEventListener("visibilitychange", this.whenSeen);
    void this.run();
  }

  close(): void {
    window.clearTimeout(this.timer);
    window.removeEventListener("online", this.retryNow);
    document.removeEventListener("visibilitychange", this.whenSeen);
    this.forgetToken();
    const abort = this.abort;
    this.abort = null;
    abort?.abort();
  }

  retryNow = (): void => {
    if (this.connection.phase !== "waiting" && this.connection.phase !== "locked") return;
    window.clearTimeout(this.timer);
    this.happen({ type: "retry" });
    void this.run();
  };

  private whenSeen = (): void => {
    if (document.visibilityState === "visible" && this.connection.phase === "waiting") this.retryNow();
  };

  private happen(happening: Happening): void {
    this.connection = next(this.connection, happening);
    this.handlers.onConnection(this.connection);
  }

  private async run(): Promise<void> {
    const abort = new AbortController();
    this.abort = abort;
    let reason = "the server ended the stream";
    let watch: number | undefined;
    const heard = () => {
      window.clearTimeout(watch);
      watch = window.setTimeout(() => abort.abort(new Error("the server fell silent")), SILENCE_MAX_MS);
    };
    try {
      heard();
      const headers = authorisation();
      const reply = await fetch(this.path, {
        headers: { Accept: "text/event-stream", ...headers },
        signal: abort.signal,
        cache: "no-store",
      });
      if (reply.status === 401) {
        this.happen({ type: "unauthorised", hadToken: "Authorization" in headers });
        return;
      }
      if (!reply.ok || !reply.body) throw new Error(`the server answered ${reply.status}`);
      this.happen({ type: "opened" });
      const parser = new EventParser();
      const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        heard();
        for (const event of parser.push(value)) this.handlers.onEvent(event);
      }
    } catch (error) {
      const silent = abort.signal.aborted && abort.signal.reason instanceof Error;
      const told = silent ? abort.signal.reason.message : error instanceof Error ? error.message : "";
      reason = /^the server/.test(told) ? told : "the server cannot be reached";
    } finally {
      window.clearTimeout(watch);
    }
    if (this.abort !== abort) return; // closed
    this.happen({ type: "failed", reason, at: Date.now(), chance: Math.random() });
    if (this.connection.phase !== "waiting") return;
    this.timer = window.setTimeout(this.retryNow, this.connection.retryAt - Date.now());
  }
}
