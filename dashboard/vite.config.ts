import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// Two pages from one source: the dashboard, served by the API, and the generator's, served by the generator.
// Nothing is inlined, so that both work under a content policy of 'self' alone.
export default defineConfig({
  plugins: [react()],
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    rolldownOptions: { input: ["index.html", "generator.html"] },
  },
  // `npm run dev` beside a stack of `make up` on its preferred ports.
  server: { host: "127.0.0.1", proxy: { "/api": "http://127.0.0.1:8000" } },
});
