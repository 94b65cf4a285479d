import { useSyncExternalStore } from "react";

export const VIEWS = ["live", "history", "pipeline"] as const;
export type View = (typeof VIEWS)[number];

function view(): View {
  const { hash, pathname } = window.location;
  const name = (hash || pathname).replace(/^#?\/?/, "").split("?")[0];
  return VIEWS.find((known) => known === name) ?? "live";
}

/** The view that the address names: in its hash, as our links do it, or in its path, as people type it. */
export function useView(): View {
  return useSyncExternalStore((listener) => {
    window.addEventListener("hashchange", listener);
    return () => window.removeEventListener("hashchange", listener);
  }, view);
}
