// Rows per second over the run, from a cumulative count of rows.

const MOST_BUCKETS = 60;
const LEAST_SECONDS = 2; // of a bucket; batches that end together would show as teeth
const MOST_SAMPLES = 720;
const [WIDTH, HEIGHT] = [600, 100];

/**
 * The samples of one run.
 *
 * The page may be opened in the middle of a run, and the server knows what came before only of the
 * runs that a server has started. Of another it is one straight line from the beginning, whose
 * slope is the mean, and is drawn dashed.
 */
export class Samples {
  constructor(run) {
    this.run = run;
    this.points = [[0, 0]];
  }

  /** What the server knows of the time before this page looked. */
  precede(earlier) {
    const seen = this.points.slice(1);
    const until = seen[0]?.[0] ?? Infinity;
    this.points = [[0, 0], ...earlier.filter(([at]) => at > 0 && at < until), ...seen];
  }

  add(elapsed, done) {
    const last = this.points.at(-1);
    if (elapsed <= last[0] || done < last[1]) return;
    this.points.push([elapsed, done]);
    if (this.points.length > MOST_SAMPLES) {
      this.points = this.points.filter((_, n) => n < 2 || n % 2 || n === this.points.length - 1);
    }
  }

  get seenFrom() { return this.points[1]?.[0] ?? 0; }
  get elapsed() { return this.points.at(-1)?.[0] ?? 0; }

  /** Rows per second in equal stretches of the run. */
  rates() {
    if (this.points.length < 3) return [];
    const buckets = Math.max(2, Math.min(MOST_BUCKETS, Math.floor(this.elapsed / LEAST_SECONDS)));
    const width = this.elapsed / buckets;
    const edges = Array.from({ length: buckets + 1 }, (_, n) => this.doneAt(n * width));
    return edges.slice(1).map((edge, n) => Math.max(0, edge - edges[n]) / width);
  }

  doneAt(moment) {
    const after = this.points.findIndex(([at]) => at >= moment);
    if (after <= 0) return this.points.at(after)[1];
    const [[fromTime, fromDone], [toTime, toDone]] = [this.points[after - 1], this.points[after]];
    return fromDone + ((toDone - fromDone) * (moment - fromTime)) / (toTime - fromTime);
  }
}

/** Draws into the paths and returns the highest rate, or null where there is nothing to draw. */
export function draw(samples, { line, area, before }) {
  const rates = smooth(samples.rates());
  const most = Math.max(0, ...rates);
  if (!most) {
    for (const path of [line, area, before]) path.setAttribute("d", "");
    return null;
  }
  const top = niceCeiling(most);
  const step = WIDTH / rates.length;
  const points = rates.map((rate, n) => [(n + 0.5) * step, HEIGHT * (1 - rate / top)]);
  points.unshift([0, points[0][1]]);
  points.push([WIDTH, points.at(-1)[1]]);
  const seen = (samples.seenFrom / samples.elapsed) * WIDTH;
  const first = seen > 2 * step ? points.findIndex(([x]) => x >= seen) : 0;
  line.setAttribute("d", path(points.slice(Math.max(0, first))));
  before.setAttribute("d", first > 0 ? path(points.slice(0, first + 1)) : "");
  area.setAttribute("d", `${path(points)}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z`);
  return top;
}

const path = (points) => `M${points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}`;

/** Over three neighbours: the state is saved about once a second, which would show as teeth. */
const smooth = (rates) =>
  rates.map((rate, n) => (rates[Math.max(0, n - 1)] + rate + rates[Math.min(rates.length - 1, n + 1)]) / 3);

function niceCeiling(value) {
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 8, 10].map((step) => step * size).find((step) => step >= value);
}
