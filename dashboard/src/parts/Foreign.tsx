import { visible } from "../text/visible";

/** What a website sent, such as a page or a user: characters without ink are named, and its direction stays its own. */
export function Foreign({ text }: { text: string }) {
  return <bdi dir="ltr">{visible(text)}</bdi>;
}
