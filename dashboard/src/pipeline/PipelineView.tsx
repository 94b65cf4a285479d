import type { Pipeline } from "../api/types";
import { usePoll } from "../api/usePoll";
import { Card, Empty } from "../parts/Card";
import { rate } from "../text/format";
import { Ledger } from "./Ledger";
import { Quarantine } from "./Quarantine";
import { Workers } from "./Workers";

const AGAIN_MS = 1_000;

export default function PipelineView() {
  const { body, error } = usePoll<Pipeline>("/api/v1/pipeline", {}, AGAIN_MS);
  return (
    <div className="stack">
      <Card
        title="Workers"
        className={error ? "old" : ""}
        aside={
          body?.events_per_s != null && (
            <span>
              {rate(body.events_per_s)} events/s
              {body.accepted_per_s != null && `, ${rate(body.accepted_per_s)} accepted`}
            </span>
          )
        }
      >
        {error && <p className="bad-text">{error.message}</p>}
        {body?.state === "away" && (
          <div className="banner bad">
            <strong>The supervisor does not answer.</strong>
            <span>{body.message}</span>
          </div>
        )}
        {body?.state === "up" && (body.workers.length ? <Workers workers={body.workers} /> : <Empty>No workers.</Empty>)}
      </Card>
      <Ledger />
      <Quarantine />
    </div>
  );
}
