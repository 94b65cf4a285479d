import { useLayoutEffect, useRef } from "react";
import { count } from "../text/format";
import { Foreign } from "./Foreign";

export interface Bar {
  name: string;
  value: number;
}

const QUIET = window.matchMedia("(prefers-reduced-motion: reduce)");

/** Moves children from where they were to where they are now, when their order has changed (first, last, invert, play). */
function useMovingOrder<Element extends HTMLElement>(order: string) {
  const list = useRef<Element>(null);
  const before = useRef(new Map<string, number>());
  // `order` is what the positions follow from.
  useLayoutEffect(() => {
    const now = new Map<string, number>();
    for (const child of list.current?.children ?? []) {
      if (!(child instanceof HTMLElement)) continue;
      const key = child.dataset.key ?? "";
      now.set(key, child.offsetTop);
      const was = before.current.get(key);
      if (QUIET.matches || before.current.size === 0) continue;
      const timing = { duration: 450, easing: "cubic-bezier(.2,.7,.2,1)" };
      if (was === undefined) child.animate([{ opacity: 0 }, { opacity: 1 }], timing);
      else if (was !== child.offsetTop) {
        child.animate([{ transform: `translateY(${was - child.offsetTop}px)` }, { transform: "none" }], timing);
      }
    }
    before.current = now;
  }, [order]);
  return list;
}

/** Ranked amounts as bars, each as long as its share of the largest; they move when ranks change. */
export function Bars({ bars, unit, label }: { bars: Bar[]; unit: string; label: string }) {
  const list = useMovingOrder<HTMLOListElement>(bars.map((bar) => bar.name).join("\n"));
  const largest = Math.max(1, ...bars.map((bar) => bar.value));
  return (
    <ol className="bars" ref={list} aria-label={label}>
      {bars.map((bar) => (
        <li key={bar.name} data-key={bar.name}>
          <span className="bar-fill" style={{ transform: `scaleX(${bar.value / largest})` }} aria-hidden="true" />
          <span className="bar-name" title={bar.name}>
            <Foreign text={bar.name} />
          </span>
          <span className="bar-value">
            {count(bar.value)}
            <span className="sr-only"> {unit}</span>
          </span>
        </li>
      ))}
    </ol>
  );
}
