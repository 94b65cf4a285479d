import { useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { useTheme } from "../app/theme";
import { count, shortCount } from "../text/format";

export interface Line {
  label: string;
  /** The name of a colour in base.css, without the dashes. */
  colour: string;
  values: (number | null)[];
  /** On an axis of its own, at the right. */
  right?: boolean;
  fill?: boolean;
}

interface Props {
  /** Seconds since 1970, rising. */
  at: number[];
  lines: Line[];
  height: number;
  /** What a screen reader is told instead of the picture. */
  label: string;
  axes?: boolean;
  /** How the moment under the pointer is written. */
  moment?: (seconds: number) => string;
  /** Whole numbers only, unless given. */
  number?: (value: number) => string;
  /** The span of the time axis by the data's newest and oldest moment, if it is to be another. */
  span?: (newest: number, oldest: number) => [number, number];
}

/** Lines over time, by uPlot; colours follow the scheme, and the width that of the place it stands in. */
export function LineChart({ at, lines, height, label, axes = true, moment, number = count, span }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const [hover, setHover] = useState<number | null>(null);
  const { isDark } = useTheme();
  const scale = useScale();
  const data = useMemo(() => [at, ...lines.map((line) => line.values)] as uPlot.AlignedData, [at, lines]);
  const newest = useRef(data);
  newest.current = data;
  const shape = lines.map((line) => `${line.label}|${line.colour}|${line.right}|${line.fill}`).join(";");

  // the chart is made anew only when its looks change; data is set below.
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const made = new uPlot(
      options(element, lines, height, scale, axes, setHover, span),
      newest.current,
      element,
    );
    chart.current = made;
    const observer = new ResizeObserver(() => {
      if (element.clientWidth) made.setSize({ width: element.clientWidth, height: height * scale });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      chart.current = null;
    };
  }, [shape, height, scale, axes, isDark]);

  useEffect(() => chart.current?.setData(data), [data]);

  const nothing = at.length === 0;
  const index = hover !== null && hover < at.length ? hover : null;
  return (
    <figure className="chart" role="img" aria-label={label}>
      <div ref={place} aria-hidden="true" className={nothing ? "unseen" : undefined} />
      {nothing && axes && <p className="chart-empty">Nothing to draw yet.</p>}
      {index !== null && moment && (
        <figcaption className="readout" aria-hidden="true">
          <span className="muted">{moment(at[index] ?? 0)}</span>
          {lines.map((line) => {
            const value = line.values[index];
            return (
              <span key={line.label}>
                <i className={`swatch ${line.colour}`} />
                {value === null || value === undefined ? "–" : number(value)} {line.label}
              </span>
            );
          })}
        </figcaption>
      )}
    </figure>
  );
}

/** Between labels of the time axis, seconds. */
const INCREMENTS = [1, 5, 10, 15, 30, 60, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800];

/** Between labels of amounts, which are whole numbers. */
const WHOLE = Array.from({ length: 13 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

/** At this size of the page's letters charts are as high as they are told to be; on a wall screen all of it grows. */
const USUAL_LETTERS_PX = 15;

function scaleNow(): number {
  return Number.parseFloat(getComputedStyle(document.documentElement).fontSize) / USUAL_LETTERS_PX || 1;
}

/** How much larger than usual the page's letters are. */
function useScale(): number {
  return useSyncExternalStore((listener) => {
    window.addEventListener("resize", listener);
    return () => window.removeEventListener("resize", listener);
  }, scaleNow);
}

function colourOf(element: Element, name: string): string {
  return getComputedStyle(element).getPropertyValue(`--${name}`).trim();
}

function options(
  element: HTMLElement,
  lines: Line[],
  height: number,
  scale: number,
  axes: boolean,
  setHover: (index: number | null) => void,
  span?: (newest: number, oldest: number) => [number, number],
): uPlot.Options {
  const ink = colourOf(element, "muted");
  const grid = colourOf(element, "line");
  const font = `${Math.round(11 * scale)}px "Inter Variable", system-ui, sans-serif`;
  const axis = { stroke: ink, font, ticks: { show: false }, gap: 6 * scale };
  const amounts = { size: 46 * scale, incrs: WHOLE, values: (_: uPlot, splits: number[]) => splits.map(shortCount) };
  const hasRight = lines.some((line) => line.right);
  return {
    width: element.clientWidth || 300,
    height: height * scale,
    padding: axes ? [8 * scale, hasRight ? 0 : 24 * scale, 0, 0] : [4, 0, 2, 0],
    legend: { show: false },
    cursor: {
      y: false,
      drag: { x: false, y: false },
      points: { size: 7 },
    },
    hooks: { setCursor: [(made) => setHover(made.cursor.idx ?? null)] },
    scales: {
      x: { time: true, range: (_, min, max) => (span && max ? span(max, min) : [min, max]) },
      y: { range: (_, __, max) => fromZero(max) },
      // Half as high: amounts that rise and fall together would hide one another.
      right: { range: (_, __, max) => fromZero(max && 2 * max) },
    },
    axes: axes
      ? [
          { ...axis, grid: { show: false }, space: 64 * scale, size: 26 * scale, values: times, incrs: INCREMENTS },
          { ...axis, ...amounts, grid: { stroke: grid, width: 1 }, space: 26 * scale },
          ...(hasRight ? [{ ...axis, ...amounts, side: 1 as const, scale: "right", grid: { show: false } }] : []),
        ]
      : [{ show: false }, { show: false }],
    series: [
      {},
      ...lines.map((line) => {
        const colour = colourOf(element, line.colour);
        return {
          label: line.label,
          scale: line.right ? "right" : "y",
          stroke: colour,
          width: 1.75 * scale,
          fill: line.fill ? `${colour}22` : undefined,
          points: { show: false },
          spanGaps: false,
        };
      }),
    ],
  };
}

/** Amounts start at zero, and leave some air above. */
function fromZero(max: number | null): [number, number] {
  return [0, max && max > 0 ? max * 1.12 : 1];
}

/** Labels of the time axis: hours and minutes, the day where it changes. */
function times(_: uPlot, splits: number[]): string[] {
  let day = "";
  const step = splits.length > 1 ? (splits[1] ?? 0) - (splits[0] ?? 0) : 0;
  return splits.map((split) => {
    const moment = new Date(split * 1000);
    const own = moment.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
    const changed = day !== "" && own !== day;
    day = own;
    if (changed || step >= 86_400) return own;
    return moment.toLocaleTimeString("en-GB", {
      hour: "2-digit",
      minute: "2-digit",
      second: step < 60 ? "2-digit" : undefined,
    });
  });
}
