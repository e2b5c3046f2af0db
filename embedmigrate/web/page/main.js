// Signs in, follows the job, and connects the parts of the page.

import * as api from "./api.js";
import * as format from "./format.js";
import { chosenKind, showFailures } from "./failures.js";
import { ask, byId, cancellable, say, setText } from "./page.js";
import { readFailures, readRun, readStats } from "./reading.js";
import { isLive, isNew, showPast, showRun } from "./run.js";
import * as starting from "./starting.js";

const TOKEN = "embedmigrate-token";
const JOB = "embedmigrate-job";
const POLL = 2_000;
const FIRST_RETRY = 500;
const SLOWEST_RETRY = 4_000;
const LOAD_EVERY = 2_000;
const COUNT_EVERY = 5_000;
const COUNT_AGAIN = 1_500;

let following = null;
let admin = false;
let last = null;
let failed = 0;
let loading = null;
let recount = () => {};

// --- signing in and out

async function signIn(token) {
  api.use({ token, job: "" });
  const { role, jobs } = await api.whoami();
  sessionStorage.setItem(TOKEN, token);
  admin = role === "admin";
  setText("role", role);
  byId("sign-in").hidden = true;
  byId("panel").hidden = false;
  byId("title").focus();
  showJobs(jobs);
  follow();
}

function signOut(message = "") {
  following?.abort();
  sessionStorage.removeItem(TOKEN);
  api.use({ token: "" });
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  byId("panel").hidden = true;
  byId("lost").hidden = true;
  byId("sign-in").hidden = false;
  document.title = "embedmigrate";
  setText("token-error", message);
  byId("token").value = "";
  byId("token").focus();
}

async function trySigningIn(token) {
  try {
    await signIn(token);
  } catch (error) {
    if (error.unauthorized) return signOut("This token is not known here.");
    if (!error.lost) return signOut(error.message);
    if (sessionStorage.getItem(TOKEN) !== token) return signOut(error.message);
    byId("lost").hidden = false;
    setTimeout(() => trySigningIn(token), POLL);
  }
}

function showJobs(jobs) {
  const select = byId("job");
  const names = jobs.map((job) => job.name ?? "");
  select.replaceChildren(...names.map((name) => new Option(name || "default", name)));
  byId("job-choice").hidden = names.length < 2;
  const kept = sessionStorage.getItem(JOB);
  if (names.includes(kept)) select.value = kept;
  api.use({ job: select.value });
}

// --- following the job

function follow() {
  following?.abort();
  following = new AbortController();
  clear();
  keepRun(following.signal);
  keepCounting(following.signal);
}

/** Nothing of one job may stand under the name of another that cannot be asked. */
function clear() {
  last = null;
  failed = 0;
  for (const id of ["coverage-rows", "target", "state-note", "run-note"]) setText(id, "");
  for (const id of ["coverage", "state"]) setText(id, format.NOTHING);
  for (const id of ["run", "reason", "run-actions", "errors-actions"]) byId(id).hidden = true;
  byId("coverage-bar").value = 0;
  byId("state").dataset.tone = "";
  setText("coverage-note", "Counting …");
  showFailures({ rows: [], total: 0, kinds: [] });
  setText("errors-note", "Looking …");
}

/** One snapshot, then the stream of events; where no stream can be had, a snapshot now and then. */
async function keepRun(signal) {
  let retry = FIRST_RETRY;
  while (!signal.aborted) {
    const began = performance.now();
    try {
      const run = readRun(await api.status());
      if (signal.aborted) return;
      show(run);
      connected(true);
      retry = FIRST_RETRY;
      await api.events((event, data) => event === "status" && show(readRun(data)), signal)
        .catch((error) => { if (error.unauthorized) throw error; });
      if (performance.now() - began < POLL) await pause(POLL, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (error.unauthorized) return signOut("This token is not known here any more.");
      connected(!error.lost);
      if (!error.lost) setText("run-note", error.message);
      await pause(retry, signal);
      retry = Math.min(2 * retry, SLOWEST_RETRY);
    }
  }
}

/** The server makes no more counts than the database can bear, and may answer with an old one. */
async function keepCounting(signal) {
  let wanted = 0;
  while (!signal.aborted) {
    const counted = document.hidden ? Infinity : await count(signal);
    const wait = counted < wanted ? COUNT_AGAIN : COUNT_EVERY;
    const asked = new Promise((resolve) => {
      recount = () => { wanted = Date.now(); resolve(); };
    });
    await Promise.race([pause(wait, signal), asked]);
  }
}

/** Shows the coverage, and tells when it was counted. */
async function count(signal) {
  try {
    const stats = readStats(await api.stats());
    if (!signal.aborted) showCoverage(stats);
    return stats.countedAt;
  } catch (error) {
    if (!signal.aborted && !error.lost) setText("coverage-note", error.message);
    return 0;
  }
}

const pause = (time, signal) =>
  new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, time);
    signal.addEventListener("abort", done);
  });

// --- showing

function show(run) {
  const before = last;
  last = run;
  const fresh = run.id && isNew(run);
  showRun(run);
  if (fresh) loadPast();
  document.title = isLive(run) ? `${format.percent(run.ratio)} · embedmigrate` : "embedmigrate";
  const changed = !before || ["id", "state", "isRunning"].some((name) => before[name] !== run[name]);
  if (changed) showButtons();
  if (changed) loadFailures();
  else if (before.failed !== run.failed) loadFailuresSoon();
  if (before && isLive(before) !== isLive(run)) recount();
  announce(before, run);
}

/** A word at each change of state and each tenth, not at each row. */
function announce(before, run) {
  const tenth = (each) => Math.floor((each?.ratio ?? 0) * 10);
  if (!before || before.state !== run.state) say(`Run ${byId("state").textContent}.`);
  else if (isLive(run) && tenth(before) !== tenth(run)) say(`${format.percent(run.ratio)} done.`);
}

function showButtons() {
  const live = last !== null && isLive(last);
  byId("run-actions").hidden = !admin;
  byId("start").hidden = live;
  byId("stop").hidden = !live;
  byId("stop").disabled = !["starting", "running", "throttled"].includes(last?.state);
  byId("errors-actions").hidden = !admin || live || failed === 0;
}

function showCoverage(stats) {
  setText("coverage", format.percent(stats.ratio));
  setText("coverage-rows", `${format.number(stats.embedded)} of ${format.rows(stats.eligible)} with text have their vector`);
  byId("coverage-bar").value = stats.ratio;
  setText("target", stats.place);
  const parts = [
    stats.missing && `${format.number(stats.missing)} missing`,
    stats.stale && `${format.number(stats.stale)} stale`,
    stats.withoutText && `${format.number(stats.withoutText)} without text`,
    `${stats.exact ? "counted" : "estimated"} ${format.moment(stats.countedAt)}`,
  ];
  setText("coverage-note", parts.filter(Boolean).join(" · "));
}

async function loadPast() {
  const { signal } = following;
  const past = await api.history().catch(() => null);
  if (past && !signal.aborted) showPast(past);
}

/** They may come many times a second. */
function loadFailuresSoon() {
  loading ??= setTimeout(loadFailures, LOAD_EVERY);
}

async function loadFailures() {
  clearTimeout(loading);
  loading = null;
  const { signal } = following;
  try {
    const kind = chosenKind();
    const failures = readFailures(await api.failures(kind));
    if (signal.aborted) return;
    failed = failures.total;
    showFailures(failures);
    if (chosenKind() !== kind) loadFailures();
    showButtons();
  } catch (error) {
    if (!signal.aborted && !error.lost) setText("errors-note", error.message);
  }
}

function connected(yes) {
  byId("lost").hidden = yes;
  byId("link").dataset.on = String(yes);
  setText("link", yes ? "live" : "offline");
}

// --- asking for something

/** The next snapshot comes from the stream; this one spares the wait. */
async function glance() {
  const { signal } = following;
  const status = await api.status().catch(() => null);
  if (status && !signal.aborted) show(readRun(status));
}

function askToStop() {
  ask({
    title: "Stop the run?",
    text: "Requests in flight are finished and stored. The next run goes on from there.",
    yes: "Stop",
    act: async () => { await api.stop(); glance(); },
  });
}

function askToRetry() {
  ask({
    title: "Retry failed rows?",
    text: `A new run takes the ${format.rows(failed)} that failed in the last one, and nothing else.`,
    yes: "Retry",
    act: async () => { await api.retry(); glance(); },
  });
}

byId("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = byId("token").value.trim();
  if (token) trySigningIn(token);
  else setText("token-error", "Paste the token first.");
});
byId("job").addEventListener("change", (event) => {
  sessionStorage.setItem(JOB, event.target.value);
  api.use({ job: event.target.value });
  follow();
});
byId("sign-out").addEventListener("click", (event) => {
  event.preventDefault();
  signOut();
});
byId("kind").addEventListener("change", loadFailures);
byId("stop").addEventListener("click", askToStop);
byId("retry").addEventListener("click", askToRetry);
byId("start").addEventListener("click", starting.open);
cancellable(byId("ask-dialog"));
starting.prepare({ started: glance });

const kept = sessionStorage.getItem(TOKEN);
if (kept) trySigningIn(kept);
else signOut();
