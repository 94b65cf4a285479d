import { type FormEvent, useState } from "react";
import { fault, localInput, PRESETS, type Range, rfc3339 } from "./ranges";

export function RangePicker({ range, choose }: { range: Range; choose: (range: Range) => void }) {
  const own = "from" in range;
  const [open, setOpen] = useState(own);
  const [from, setFrom] = useState(() => localInput(own ? new Date(range.from) : new Date(Date.now() - 3_600_000)));
  const [to, setTo] = useState(() => localInput(own ? new Date(range.to) : new Date()));
  const [wrong, setWrong] = useState("");
  const toldBy = wrong ? "range-wrong" : undefined;
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
              setWrong("");
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
            From{" "}
            <input
              type="datetime-local"
              value={from}
              aria-invalid={wrong !== ""}
              aria-describedby={toldBy}
              onChange={(event) => setFrom(event.target.value)}
            />
          </label>
          <label>
            to{" "}
            <input
              type="datetime-local"
              value={to}
              aria-invalid={wrong !== ""}
              aria-describedby={toldBy}
              onChange={(event) => setTo(event.target.value)}
            />
          </label>
          <button type="submit" className="button">
            Show
          </button>
          {wrong && (
            <p id="range-wrong" role="alert" className="bad-text">
              {wrong}
            </p>
          )}
        </form>
      )}
    </div>
  );
}
