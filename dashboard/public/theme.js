// Before the first paint, so that a page that was switched to dark does not flash white.
try {
  const chosen = localStorage.getItem("hotpath.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Without storage the system's scheme holds.
}
