import { expect, test } from "vitest";
import { EventParser } from "../src/api/sse";

const TEXT = 'retry: 1000\n\nid: 7\nevent: summary\ndata: {"a":\ndata: 1}\n\n: heartbeat\n\ndata:x\r\n\r\ndata: y\r\rdata';

function parse(pieces: string[]) {
  const parser = new EventParser();
  return pieces.flatMap((piece) => parser.push(piece));
}

const WANTED = [
  { event: "summary", data: '{"a":\n1}', id: "7" },
  { event: "message", data: "x", id: "7" },
  { event: "message", data: "y", id: "7" },
];

test("events come out whole however the stream is cut", () => {
  expect(parse([TEXT])).toEqual(WANTED);
  expect(parse([...TEXT])).toEqual(WANTED);
  for (let at = 1; at < TEXT.length; at += 1) expect(parse([TEXT.slice(0, at), TEXT.slice(at)])).toEqual(WANTED);
});

test("an event without its empty line is not one yet", () => {
  expect(parse(["data: x\n"])).toEqual([]);
});
