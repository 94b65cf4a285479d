// Server-sent events over fetch: unlike EventSource it can carry a bearer token and sees the status.

export interface ServerEvent {
  event: string;
  data: string;
  id: string;
}

/** Cuts a stream's text, which comes in any pieces, into events. Comments (heartbeats) give none. */
export class EventParser {
  private rest = "";
  private event = "";
  private data: string[] = [];
  private id = "";

  push(text: string): ServerEvent[] {
    const found: ServerEvent[] = [];
    // A line may end in CR, LF or both; a CR at the end of a piece may be half of a pair.
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "") {
        if (this.data.length) {
          found.push({ event: this.event || "message", data: this.data.join("\n"), id: this.id });
        }
        this.event = "";
        this.data = [];
        continue;
      }
      this.field(line);
    }
    return found;
  }

  private field(line: string): void {
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.event = value;
    else if (name === "data") this.data.push(value);
    else if (name === "id") this.id = value;
  }
}
