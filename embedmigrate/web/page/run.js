// The run as it is now: state, progress, figures, chart.

import * as format from "./format.js";
import { Samples, draw } from "./chart.js";
import { byId, setText } from "./page.js";

const STATES = {
  idle: ["no run yet", ""],
  starting: ["starting", "live"],
  running: ["running", "live"],
  throttled: ["throttled", "wait"],
  stopping: ["stopping", "wait"],
  completed: ["completed", ""],
  completed_with_errors: ["completed with errors", "wrong"],
  limit_reached: ["limit reached", ""],
  stopped: ["stopped", ""],
  interrupted: ["interrupted", ""],
  failed: ["failed", "wrong"],
  dead: ["dead", "wrong"],
};
const REASONS = {
  provider_rate_limit: "the provider's rate limit",
  replica_lag: "a replica is behind",
  wal_rate: "more WAL than --max-wal-rate",
  throttle_query: "asked by --throttle-query",
  asked: "asked to stop",
  sigint: "Ctrl-C",
  sigterm: "SIGTERM",
};

let samples = new Samples(null);

/** Whether the chart is of another run, so that its past has to be asked for. */
export const isNew = (run) => samples.run !== run.id;

export function showPast({ runId, points }) {
  if (samples.run !== runId) return;
  samples.precede(points);
  showChart();
}

/** Also in the moment between its last word and the end of its process. */
export const isLive = (run) => run.isRunning;

export function showRun(run) {
  const [word, tone] = STATES[run.state] ?? [run.state, ""];
  setText("state", word);
  byId("state").dataset.tone = tone;
  byId("run").hidden = run.state === "idle";
  showReason(run);
  if (run.state === "idle") {
    setText("run-note", "Nothing has run on this job yet.");
    return;
  }
  setText("done-share", format.percent(run.ratio));
  setText("done-rows", `${format.number(run.done)} of ${format.rows(run.total)}`);
  byId("run-bar").value = run.ratio ?? 0;
  showFigures(run);
  if (isNew(run)) samples = new Samples(run.id);
  if (run.state !== "starting") samples.add(run.elapsed, run.own);
  showChart();
  setText("run-note", history(run));
}

/** What passes by stands beside the state, so that nothing jumps; what stays has a line of its own. */
function showReason(run) {
  setText("state-note", passing(run));
  const dead = "The process ended without saving a final state. Start again: it goes on, no row is lost.";
  const words = run.state === "dead" ? dead : (run.error?.message ?? "");
  byId("reason").hidden = !words;
  setText("reason", words);
}

function passing(run) {
  if (run.state === "throttled") {
    const wait = run.waitSeconds ? `, for ${format.duration(run.waitSeconds)}` : "";
    return `holding back: ${REASONS[run.reason] ?? run.reason ?? "reason not known"}${wait}`;
  }
  if (run.state === "stopping") {
    const requests = run.inFlight === 1 ? "one request" : `${format.number(run.inFlight)} requests`;
    return `finishing ${requests} in flight`;
  }
  return "";
}

function showFigures(run) {
  const live = isLive(run);
  const mean = run.elapsed > 0 ? run.own / run.elapsed : null;
  setText("rate", `${format.rate(live ? run.rowsPerSecond : mean)} rows/s`);
  setText("rate-note", live ? `mean ${format.rate(mean)}` : "mean of the run");
  if (live) {
    setText("time-name", "Time left");
    setText("time", format.duration(run.eta));
    const end = Date.now() + run.eta * 1000;
    setText("time-note", run.eta == null ? "known after 30 s" : `about ${format.moment(end, { seconds: false })}`);
  } else {
    setText("time-name", "Took");
    setText("time", format.duration(run.elapsed));
    setText("time-note", run.endedAt ? `until ${format.moment(run.endedAt)}` : "");
  }
  setText("cost", format.money(run.cost));
  setText("cost-note", `${format.tokens(run.tokens)} tokens`);
  setText("retries", format.number(run.retries));
  setText("retries-note", `of ${format.number(run.requests)} requests`);
  setText("failed", format.number(run.failed));
  setText("failed-note", run.skipped ? `${format.number(run.skipped)} skipped` : "");
  setText("flight", live ? format.number(run.inFlight) : format.NOTHING);
  setText("flight-note", live && run.concurrency ? `of ${format.number(run.concurrency)} requests` : "");
}

function showChart() {
  const paths = { line: byId("chart-line"), area: byId("chart-area"), before: byId("chart-before") };
  const top = draw(samples, paths);
  byId("chart").hidden = top === null;
  if (top === null) return;
  setText("chart-most", `0 to ${format.rate(top)}`);
  setText("chart-from", "start");
  setText("chart-to", format.duration(samples.elapsed));
  byId("chart-svg").setAttribute(
    "aria-label",
    `Rows per second over the run, between 0 and ${format.rate(top)}.`,
  );
}

function history(run) {
  const parts = [
    run.id && `Run ${run.id}`,
    run.model,
    run.startedAt && `started ${format.moment(run.startedAt)}`,
    run.lastKey && `saved at row ${run.lastKey}`,
  ];
  return parts.filter(Boolean).join(" · ");
}
