/** How the page says things: times, days, names and errors in plain words. */

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat("en", { weekday: "long", day: "numeric", month: "long" });
const ago = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

const DAY = 86_400_000;

const ERRORS = {
  forbidden: "You are not allowed to do that here.",
  unauthorized: "The server does not know you. Sign in again.",
  room_full: "That room is full.",
  not_joined: "You are not in that room any more.",
  not_found: "There is nothing by that name.",
  too_large: "That message is too long.",
  rate_limited: "That was a bit fast. Wait a moment and try again.",
  unavailable: "The server cannot store messages right now. Try again soon.",
  dropped: "Too many messages were waiting to be sent, so the oldest one was given up.",
  offline: "There is no connection right now.",
};

/** One sentence for an error of the server, or of the client. */
export function explain({ code, message }) {
  return ERRORS[code] ?? `The server says: ${message ?? code}`;
}

export function timeOfDay(time) {
  return clock.format(time);
}

const startOfDay = (time) => new Date(time).setHours(0, 0, 0, 0);

export function sameDay(one, other) {
  return startOfDay(one) === startOfDay(other);
}

/** "Today", "Yesterday" or "Monday, November 3". */
export function dayName(time, now = Date.now()) {
  const days = Math.round((startOfDay(now) - startOfDay(time)) / DAY);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  return weekday.format(time);
}

/** "5 minutes ago", from a time in the past. */
export function sinceWords(time, now = Date.now()) {
  const minutes = Math.round((now - time) / 60_000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return ago.format(-minutes, "minute");
  if (minutes < 24 * 60) return ago.format(-Math.round(minutes / 60), "hour");
  return ago.format(-Math.round(minutes / 60 / 24), "day");
}

/** "3 people", "1 person". */
export function count(number, one, many) {
  return `${number} ${number === 1 ? one : many}`;
}

/** One or two letters that stand for a name: "ada.lovelace" is AL. */
export function initials(name) {
  const [first = "?", second = ""] = name.split(/[^\p{L}\p{N}]+/u).filter(Boolean);
  return ([...first][0] + ([...second][0] ?? "")).toUpperCase();
}

/** A hue that stays with a name, 0–359. */
export function hueOf(name) {
  let hash = 7;
  for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)) % 100_003;
  return (hash * 47) % 360;
}

/** A message's content as text: what is not a string already is shown as compact JSON. */
export function textOf(content) {
  return typeof content === "string" ? content : JSON.stringify(content) ?? "";
}

/** How many bytes a string of base64 stands for. */
export function bytesIn(base64) {
  return (base64.length * 3) / 4 - (base64.match(/=*$/)[0].length);
}

/** Why a name cannot be a user's or a room's, or "" where it can. */
export function nameProblem(name) {
  if (!name) return "A name needs at least one character.";
  if ([...name].length > 128) return "A name has at most 128 characters.";
  return /\p{Cc}/u.test(name) ? "A name has no control characters." : "";
}

const MOODS = ["quiet", "bright", "gentle", "curious", "sunny", "swift", "mellow", "brave"];
const BIRDS = ["wren", "heron", "finch", "plover", "robin", "swallow", "lark", "kestrel"];

/** A friendly name for somebody who has not chosen one. */
export function suggestedName(random = Math.random) {
  const pick = (words) => words[Math.floor(random() * words.length)];
  return `${pick(MOODS)}-${pick(BIRDS)}`;
}
