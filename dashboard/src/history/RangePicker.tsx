import { type FormEvent, useState } from "react";
import { fault, localInput, PRESETS, rfc3339 } from "./ranges";

/** The last so long, or from one moment to another. */
export type Range = { preset: string } | { from: string; to: string };

export function RangePicker({ range, choose }: { range: Range; choose: (range: Range) => void }) {
  const [open, setOpen] = useState(false);
  const [from, setFrom] = useState(() => localInput(new Date(Date.now() - 3_600_000)));
  const [to, setTo] = useState(() => localInput(new Date()));
  const [wrong, setWrong] = useState("");
  const own = "from" in range;
  const apply = (event: FormEvent) => {
    event.preventDefault();
    const found = fault(from, to);
    setWrong(found);
    if (!found) choose({ from: rfc3339(new Date(from)), to: rfc3339(new Date(to)) });
  };
  return (
    <div className="range">
      <div className="segments" role="group" aria-label="Range">
        {PRESETS.map((preset) => (
          <button
            key={preset.name}
            type="button"
            aria-pressed={"preset" in range && range.preset === preset.name}
            onClick={() => {
              setOpen(false);
              choose({ preset: preset.name });
            }}
          >
            {preset.label}
          </button>
        ))}
        <button type="button" aria-pressed={own} aria-expanded={open} onClick={() => setOpen(!open)}>
          From … to
        </button>
      </div>
      {open && (
        <form className="own-range" onSubmit={apply}>
          <label>
            From <input type="datetime-local" value={from} onChange={(event) => setFrom(event.target.value)} />
          </label>
          <label>
            to <input type="datetime-local" value={to} onChange={(event) => setTo(event.target.value)} />
          </label>
          <button type="submit" className="button">
            Show
          </button>
          {wrong && (
            <p role="alert" className="bad-text">
              {wrong}
            </p>
          )}
        </form>
      )}
    </div>
  );
}
