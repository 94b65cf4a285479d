import { lazy, Suspense, useEffect } from "react";
import { useLive } from "../api/live";
import { LiveView } from "../live/LiveView";
import { Header } from "./Header";
import { useView, type View, VIEWS } from "./route";
import { StatusBanner, StatusPill } from "./Status";
import { TokenPrompt } from "./TokenPrompt";

const HistoryView = lazy(() => import("../history/HistoryView"));
const PipelineView = lazy(() => import("../pipeline/PipelineView"));

const LABELS: Record<View, string> = { live: "Live", history: "History", pipeline: "Pipeline" };

export function App() {
  const view = useView();
  const { connection } = useLive();
  useEffect(() => {
    document.title = `${LABELS[view]} · hotpath`;
  }, [view]);
  return (
    <>
      <a className="skip" href="#main" onClick={skip}>
        Skip to the numbers
      </a>
      <Header
        links={VIEWS.map((name) => ({ href: `#/${name}`, label: LABELS[name], current: name === view }))}
      >
        <StatusPill />
      </Header>
      <main id="main" tabIndex={-1}>
        <StatusBanner />
        <h1 className="sr-only">{LABELS[view]}</h1>
        {connection.phase === "locked" ? (
          <TokenPrompt refused={connection.refused} />
        ) : (
          <Suspense fallback={<p className="muted loading">Loading …</p>}>
            {view === "live" && <LiveView />}
            {view === "history" && <HistoryView />}
            {view === "pipeline" && <PipelineView />}
          </Suspense>
        )}
      </main>
    </>
  );
}

/** The address's hash names the view, so that the link moves the focus by itself. */
function skip(event: React.MouseEvent): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}
