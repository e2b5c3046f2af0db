// The requests of this page. The token never leaves the Authorization header.

const BASE = "api/admin/";
const SILENCE = 30_000; // the server says something every 15 s

let token = "";
let job = "";

/** For every request that follows. */
export function use({ token: newToken = token, job: newJob = job }) {
  token = newToken;
  job = newJob;
}

/** What the server said against a request; `status` 0 where it said nothing at all. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
  get unauthorized() { return this.status === 401; }
  get lost() { return this.status === 0 || this.status === 502 || this.status === 503 || this.status === 504; }
}

async function ask(path, { query = {}, ...options } = {}) {
  const chosen = new URLSearchParams(job ? { job, ...query } : query);
  const headers = { Authorization: `Bearer ${token}`, ...options.headers };
  let reply;
  try {
    reply = await fetch(`${path}?${chosen}`, { cache: "no-store", ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "connection_lost", "The server does not answer.");
  }
  if (reply.ok) return reply;
  const said = await reply.json().catch(() => ({}));
  const { code = `http_${reply.status}`, message = `The server answered ${reply.status}.` } = said.error ?? {};
  throw new Refused(reply.status, code, message);
}

const get = async (path, query) => (await ask(BASE + path, { query })).json();

const post = async (path, body = {}) =>
  (await ask(BASE + path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  })).json();

export const whoami = () => get("whoami");
export const stats = async () => (await get("embeddings/stats")).stats;
export const status = async () => (await get("embeddings/status")).status;
export const history = async () => (await get("embeddings/history")).history;
export const failures = (code) => get("embeddings/errors", code ? { code } : {});
export const plan = (options) => post("embeddings/plan", options);
export const start = (options) => post("embeddings/generate-all", options);
export const stop = () => post("embeddings/stop");
export const retry = () => post("embeddings/retry-failed");

/**
 * Calls `tell(event, data)` for each server-sent event until the stream ends or falls silent.
 *
 * EventSource cannot send an Authorization header, hence the reader.
 */
export async function events(tell, signal) {
  const silent = new AbortController();
  const both = AbortSignal.any([signal, silent.signal]);
  const reply = await ask("events", { headers: { Accept: "text/event-stream" }, signal: both });
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const watch = setTimeout(() => silent.abort(), SILENCE);
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (signal.aborted) throw error;
      throw new Refused(0, "connection_lost", "The stream of events broke off.");
    } finally {
      clearTimeout(watch);
    }
    if (part.done) return;
    const blocks = (rest + part.value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) announce(block, tell);
  }
}

function announce(block, tell) {
  let event = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) event = line.slice(6).trim();
    if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  if (data.length) tell(event, JSON.parse(data.join("\n")));
}
