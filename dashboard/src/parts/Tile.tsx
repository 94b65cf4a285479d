import type { ReactNode } from "react";

/** Characters beyond which a number is set smaller, so that it stays in its tile on a narrow screen. */
const LONG = 9;

/** One number: what it is, how much, and a line of context. */
export function Tile({
  title,
  value,
  unit,
  note,
  level,
  testId,
  children,
}: {
  title: string;
  value: string;
  unit?: string;
  note?: ReactNode;
  level?: "good" | "warn" | "bad";
  testId?: string;
  children?: ReactNode;
}) {
  const long = value.length > LONG ? "long" : "";
  return (
    <section className={`card tile ${level ?? ""} ${long}`} aria-label={title}>
      <h2>{title}</h2>
      <p className="tile-value" data-testid={testId}>
        {value}
        {unit && <span className="tile-unit"> {unit}</span>}
      </p>
      {note && <p className="tile-note">{note}</p>}
      {children}
    </section>
  );
}
