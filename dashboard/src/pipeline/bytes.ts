// Raw messages for people: as text with what is unseen made visible, and as a dump of bytes. Pure.

import { count } from "../text/format";
import { visible } from "../text/visible";

export function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** Bytes shown of what is no text. */
const HEX_SHOWN = 16;

/** A message in one line that is never blank: there must be something to see, to name and to press. */
export function preview(message: { payload: string; payload_text: string | null; payload_size: number }): string {
  const kept = fromBase64(message.payload);
  if (message.payload_text === null) {
    const hex = [...kept.subarray(0, HEX_SHOWN)].map(hexOf).join(" ");
    return message.payload_size > HEX_SHOWN ? `${hex} …` : hex;
  }
  const shown = visible(message.payload_text);
  if (shown.trim()) return shown;
  if (!message.payload_size) return "(nothing)";
  const what = kept.length === 1 ? "1 space" : `${count(kept.length)} spaces`;
  return kept.length < message.payload_size ? `(${what} …)` : `(${what})`;
}

function hexOf(byte: number): string {
  return byte.toString(16).padStart(2, "0");
}

/** Lines of `offset  16 bytes in hex  what is ASCII of them`. */
export function dump(bytes: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = [...bytes.subarray(at, at + 16)];
    const hex = row.map(hexOf).join(" ");
    const ascii = row.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(4, "0")}  ${hex.padEnd(47)}  ${ascii}`);
  }
  return lines.join("\n");
}
