import { type FormEvent, useEffect, useRef, useState } from "react";
import { setToken } from "../api/token";

/** Asks for the API's bearer token. It stays in this tab's session storage. */
export function TokenPrompt({ refused }: { refused: boolean }) {
  const [text, setText] = useState("");
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => input.current?.focus(), []);
  const give = (event: FormEvent) => {
    event.preventDefault();
    if (text.trim()) setToken(text.trim());
  };
  return (
    <form className="card token" onSubmit={give} aria-labelledby="token-title">
      <h2 id="token-title">This API asks for a token</h2>
      <p className="muted">It is the value of HOTPATH_API_TOKEN, and is kept in this tab only.</p>
      <label htmlFor="token">Token</label>
      <div className="field-row">
        <input
          id="token"
          ref={input}
          type="password"
          autoComplete="off"
          value={text}
          onChange={(event) => setText(event.target.value)}
          aria-invalid={refused}
          aria-describedby={refused ? "token-refused" : undefined}
        />
        <button type="submit" className="button">
          Open
        </button>
      </div>
      {refused && (
        <p id="token-refused" role="alert" className="bad-text">
          The API does not know that token.
        </p>
      )}
    </form>
  );
}
