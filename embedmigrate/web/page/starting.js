// The dialog that starts a run: options, a preview of what they take, and only then the start.

import * as api from "./api.js";
import * as format from "./format.js";
import { byId, cancellable, element, setText } from "./page.js";

const dialog = byId("start-dialog");
const form = byId("start-form");
const confirm = byId("confirm-start");

let previewed = null;
let edition = 0;

export function prepare({ started }) {
  cancellable(dialog);
  form.addEventListener("input", forget);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    working(preview);
  });
  confirm.addEventListener("click", () => working(async () => {
    await api.start(previewed);
    dialog.close();
    started();
  }));
}

export function open() {
  forget();
  dialog.showModal();
}

/** What was previewed does not hold for other options. */
function forget() {
  edition += 1;
  previewed = null;
  confirm.disabled = true;
  setText("confirm-start", "Start");
  byId("preview").hidden = true;
  byId("resume-key").hidden = form.elements.resume.value !== "key";
  setText("start-error", "");
}

async function working(act) {
  const buttons = form.querySelectorAll(".actions button:not([value=cancel])");
  for (const button of buttons) button.disabled = true;
  form.setAttribute("aria-busy", "true");
  setText("start-error", "");
  try {
    await act();
  } catch (error) {
    setText("start-error", error.message);
  } finally {
    form.removeAttribute("aria-busy");
    byId("plan").disabled = false;
    confirm.disabled = previewed === null;
  }
}

function options() {
  const wrong = [...form.elements].find((field) => !field.checkValidity?.() && field.name);
  if (wrong) {
    wrong.focus();
    throw new Error(`${wrong.closest("label").firstChild.textContent.trim()}: ${wrong.validationMessage}`);
  }
  const chosen = { skipExisting: form.elements.rows.value === "skip" };
  for (const name of ["batchSize", "delayBetweenBatches", "concurrency", "limit", "maxCost"]) {
    if (form.elements[name].value !== "") chosen[name] = form.elements[name].valueAsNumber;
  }
  const { value: resume } = form.elements.resume;
  if (resume === "last") chosen.resumeFrom = "last";
  if (resume === "key") chosen.resumeFrom = form.elements.resumeKey.value;
  return chosen;
}

async function preview() {
  const [chosen, asked] = [options(), edition];
  const { plan } = await api.plan(chosen);
  if (asked !== edition) return;
  showPlan(plan);
  if (!plan.possible) return;
  previewed = chosen;
  setText("confirm-start", plan.rowsSelected == null ? "Start" : `Start: ${format.rows(plan.rowsSelected)}`);
  confirm.disabled = false;
  confirm.focus();
}

function showPlan(plan) {
  const known = plan.rowsSelected != null;
  byId("preview").hidden = false;
  byId("preview").querySelector("dl").hidden = !known;
  byId("plan-checks").replaceChildren(
    ...plan.checks
      .filter((check) => check.status === "failed" || check.status === "warning")
      .map((check) => element("li", check.message, { "data-status": check.status })),
  );
  if (!known) return;
  const error = plan.tokensErrorRatio;
  setText("plan-rows", format.number(plan.rowsSelected));
  setText("plan-rows-note", `of ${format.number(plan.rowsTotal)}`);
  setText("plan-tokens", format.tokens(plan.tokens));
  setText("plan-tokens-note", error ? `± ${format.percent(error)}` : "");
  setText("plan-cost", format.money(plan.costUsd));
  setText("plan-cost-note", plan.model ?? "");
  setText("plan-time", format.duration(plan.seconds));
  setText("plan-time-note", `${format.number(plan.requests)} requests`);
}
