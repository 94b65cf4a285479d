// The optional bearer token: asked for when a server answers 401, kept for this tab alone.

const KEY = "hotpath.token";
const listeners = new Set<() => void>();
let token = read();

function read(): string {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

export function setToken(value: string): void {
  token = value;
  try {
    sessionStorage.setItem(KEY, value);
  } catch {
    // Kept for as long as the page is open, then.
  }
  for (const listener of listeners) listener();
}

/** Call `listener` whenever another token is given; returns what ends that. */
export function onToken(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function authorisation(): Record<string, string> {
  return token ? { Authorization: `Bearer ${token}` } : {};
}
