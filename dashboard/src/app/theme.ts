// Light or dark: the system's, unless the switch says otherwise. public/theme.js applies the choice before the first paint.

import { useCallback, useSyncExternalStore } from "react";

export type Choice = "system" | "light" | "dark";

const KEY = "hotpath.theme";
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set<() => void>();

function choice(): Choice {
  const chosen = document.documentElement.dataset.theme;
  return chosen === "light" || chosen === "dark" ? chosen : "system";
}

function choose(chosen: Choice): void {
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  try {
    if (chosen === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, chosen);
  } catch {
    // It holds until the page is left.
  }
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  dark.addEventListener("change", listener);
  return () => {
    listeners.delete(listener);
    dark.removeEventListener("change", listener);
  };
}

function isDark(): boolean {
  return choice() === "dark" || (choice() === "system" && dark.matches);
}

/** Whether the page is dark now, and the switch. */
export function useTheme(): { isDark: boolean; toggle: () => void } {
  const now = useSyncExternalStore(subscribe, isDark);
  const toggle = useCallback(() => {
    const wanted = isDark() ? "light" : "dark";
    choose((wanted === "dark") === dark.matches ? "system" : wanted);
  }, []);
  return { isDark: now, toggle };
}
