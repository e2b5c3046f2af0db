// Numbers and times in the browser's locale; the words and the units stay English.

export const NOTHING = "–";

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const share = new Intl.NumberFormat(undefined, {
  style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1,
});
const usd = { style: "currency", currency: "USD", currencyDisplay: "narrowSymbol" };
const dollars = new Intl.NumberFormat(undefined, usd);
const cents = new Intl.NumberFormat(undefined, { ...usd, maximumFractionDigits: 4 });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const shortClock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const date = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "numeric", day: "numeric",
});

export const number = (value) => (value == null ? NOTHING : whole.format(value));

export const rows = (count) => `${number(count)} ${count === 1 ? "row" : "rows"}`;

/** Rounded down: 100 % means all of them. */
export const percent = (ratio) =>
  ratio == null ? NOTHING : share.format(Math.floor(ratio * 1000 + 1e-9) / 1000);

export const money = (amount) =>
  amount == null ? "not known" : (amount > 0 && amount < 0.01 ? cents : dollars).format(amount);

export const rate = (value) =>
  value == null ? NOTHING : (value < 100 ? tenths : whole).format(value);

/** A count with a prefix where its last digits say nothing. */
export function tokens(count) {
  if (count == null) return NOTHING;
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (count >= size) return `${tenths.format(count / (size === 1e4 ? 1e3 : size))} ${unit}`;
  }
  return whole.format(count);
}

/** Seconds as a person says them, the two largest units. */
export function duration(seconds) {
  if (seconds == null) return NOTHING;
  if (seconds < 1) return "under 1 s";
  const total = Math.round(seconds);
  const [d, h, m] = [Math.floor(total / 86400), Math.floor(total / 3600) % 24, Math.floor(total / 60) % 60];
  if (d) return `${whole.format(d)} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  if (m) return `${m} min ${total % 60} s`;
  return `${total} s`;
}

/** The time, with the day where it is another one. */
export function moment(when, { seconds = true } = {}) {
  const at = new Date(when);
  if (!when || Number.isNaN(at.getTime())) return NOTHING;
  const time = (seconds ? clock : shortClock).format(at);
  return at.toDateString() === new Date().toDateString() ? time : `${date.format(at)}, ${time}`;
}
