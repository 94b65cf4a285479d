import { retryLive, useLive } from "../api/live";
import { ageNow, conditionOf } from "../text/condition";
import { clock, wholeDuration } from "../text/format";
import { useNow } from "./useNow";

/** In the bar: one word, and as of when the numbers hold. */
export function StatusPill() {
  const live = useLive();
  const now = useNow();
  const condition = conditionOf(live, now);
  const { summary } = live;
  return (
    <div className={`pill ${condition.level}`} data-testid="status" data-word={condition.word}>
      <span className="dot" aria-hidden="true" />
      <span className="pill-word">{condition.word}</span>
      {summary && (
        <span className="pill-time" title={`as of ${summary.as_of}`}>
          <span className="wide">as of {clock(new Date(summary.as_of))}, </span>
          {wholeDuration(ageNow(live, now))} ago
        </span>
      )}
    </div>
  );
}

/** Under the bar, only when something is to be said. Announced to screen readers once per change, not per second. */
export function StatusBanner() {
  const live = useLive();
  const condition = conditionOf(live, useNow());
  const cutOff = live.connection.phase === "waiting";
  return (
    <>
      <div className="sr-only" role="status">
        {condition.word === "Live" ? "The numbers are live." : condition.word}
      </div>
      {condition.sentence && live.connection.phase !== "locked" && (
        <div className={`banner ${condition.level}`} data-testid="banner">
          <strong>{condition.word}.</strong> <span>{condition.sentence}</span>
          {cutOff && (
            <button type="button" className="quiet-button" onClick={retryLive}>
              Try now
            </button>
          )}
        </div>
      )}
    </>
  );
}
