// Questions to the read API, and its answers or errors.

import { authorisation } from "./token";

/** What the API says when it cannot answer: see api/errors.py. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

export type Query = Record<string, string | number | undefined>;

export function address(path: string, query: Query = {}): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text ? `${path}?${text}` : path;
}

async function ask(url: string, init: RequestInit = {}): Promise<Response> {
  let reply: Response;
  try {
    reply = await fetch(url, {
      ...init,
      cache: "no-store",
      headers: { ...authorisation(), ...(init.headers as Record<string, string> | undefined) },
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The server cannot be reached.");
  }
  if (reply.ok) return reply;
  let code = "http_error";
  let message = `The server answered ${reply.status}.`;
  try {
    const body = (await reply.json()) as { error?: { code?: string; message?: string } };
    code = body.error?.code ?? code;
    message = body.error?.message ?? message;
  } catch {
    // A proxy's own page, perhaps: the status says enough.
  }
  throw new ApiError(reply.status, code, message);
}

export async function get<Body>(path: string, query: Query = {}, signal?: AbortSignal): Promise<Body> {
  const reply = await ask(address(path, query), { signal });
  return (await reply.json()) as Body;
}

export async function put<Body>(path: string, body: unknown): Promise<Body> {
  const init = { method: "PUT", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  return (await (await ask(path, init)).json()) as Body;
}

/** Save a reply as a file: a plain link could not carry the token. */
export async function download(path: string, query: Query, name: string): Promise<void> {
  const reply = await ask(address(path, query));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await reply.blob());
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
