/** When to come back after a connection is lost, and when not to. */

/** Full jitter: any moment up to an exponential bound, so that a thousand clients do not return as one. */
export function backoff(attempt, random = Math.random, base = 500, cap = 30_000) {
  return random() * Math.min(cap, base * 2 ** attempt);
}

/** Close codes 4500–4999 say that coming back cannot help. */
export const isFinal = (code) => code >= 4500 && code <= 4999;
