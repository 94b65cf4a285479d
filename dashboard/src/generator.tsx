import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { GeneratorPage } from "./generator/GeneratorPage";
import "@fontsource-variable/inter/index.css";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/views.css";

const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <GeneratorPage />
    </StrictMode>,
  );
}
