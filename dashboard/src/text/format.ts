// Numbers, times and rates as people read them. All pure.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

/** 1,234,567 */
export function count(value: number): string {
  return whole.format(value);
}

/** 1,234 up to 99,999, then 123K, 1.23M: for places that must not grow. */
export function shortCount(value: number): string {
  return Math.abs(value) < 100_000 ? whole.format(value) : compact.format(value);
}

/** Events a second: two digits below ten, whole numbers above. */
export function rate(value: number): string {
  if (value !== 0 && Math.abs(value) < 9.95) return value.toFixed(1);
  return shortCount(Math.round(value));
}

/** 0.4 s, 12 s, 3 min 5 s, 2 h 4 min, 3 d 1 h */
export function duration(seconds: number): string {
  if (seconds < 0) return "0 s";
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const total = Math.round(seconds);
  if (total < 60) return `${total} s`;
  if (total < 3600) return pair(total, 60, "min", 1, "s");
  if (total < 86_400) return pair(total, 3600, "h", 60, "min");
  return pair(total, 86_400, "d", 3600, "h");
}

/** The same in whole seconds: for ages of numbers whose time is in whole seconds. */
export function wholeDuration(seconds: number): string {
  const total = Math.max(0, Math.round(seconds));
  return total < 10 ? `${total} s` : duration(total);
}

function pair(total: number, large: number, largeUnit: string, small: number, smallUnit: string): string {
  const first = Math.floor(total / large);
  const second = Math.floor((total % large) / small);
  return second ? `${first} ${largeUnit} ${second} ${smallUnit}` : `${first} ${largeUnit}`;
}

/** 340 µs, 12.3 ms, 1.2 s */
export function shortTime(seconds: number): string {
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${(seconds * 1000).toFixed(seconds < 0.1 ? 1 : 0)} ms`;
  return duration(seconds);
}

/** A window's length in words: 5 min, 15 min, 1 h. */
export function windowOf(seconds: number): string {
  return duration(seconds);
}

/** 14:05:09 in the reader's zone. */
export function clock(moment: Date): string {
  return moment.toLocaleTimeString("en-GB");
}

/** 14:05 today, 3 Mar 14:05 on other days. */
export function shortMoment(moment: Date, now: Date = new Date()): string {
  const time = moment.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  if (moment.toDateString() === now.toDateString()) return time;
  return `${moment.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${time}`;
}

/** 12.3 %, 0.04 %, 0 % */
export function share(part: number, all: number): string {
  if (!all || !part) return "0 %";
  const percent = (100 * part) / all;
  if (percent < 0.01) return "< 0.01 %";
  return `${percent.toFixed(percent < 1 ? 2 : percent < 10 ? 1 : 0)} %`;
}

/** 12 KiB, 209 MiB */
export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = value;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size < 10 && unit ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

/** "not_json" as "not json" */
export function words(name: string): string {
  return name.replaceAll("_", " ");
}
