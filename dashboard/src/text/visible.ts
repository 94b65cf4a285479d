// Text that others wrote, as people can tell it apart: nothing in it hides, and nothing turns its neighbours round. Pure.

const NAMES: Record<number, string> = { 0: "NUL", 9: "TAB", 10: "LF", 13: "CR", 27: "ESC", 127: "DEL" };

/** What leaves no ink, the plain space aside: controls, formats, white space, fillers, the blank of Braille. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{DI}\u2800]|(?! )\p{Zs}/gu;

/** Unseen characters by name, so that a message is one line and nothing hides in it. */
export function visible(text: string): string {
  return text.replace(UNSEEN, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return `‹${NAMES[code] ?? `U+${code.toString(16).toUpperCase().padStart(4, "0")}`}›`;
  });
}
