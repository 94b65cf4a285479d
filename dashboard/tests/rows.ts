import type { Row } from "../src/generator/batches";

export function batch(size: number): Row[] {
  return Array.from({ length: size }, (_, number) => [
    number % 16,
    number,
    `{"timestamp":"2026-01-01T12:00:00Z","user_id":"u${number}","event_type":"page_view","page_url":"/p","session_id":"s"}`,
  ]);
}
