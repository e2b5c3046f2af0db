// The rows that failed, by kind.

import * as format from "./format.js";
import { byId, element, setText } from "./page.js";

/** "" for all of them. */
export const chosenKind = () => byId("kind").value;

export function showFailures({ rows, total, kinds }) {
  showKinds(kinds, total);
  byId("errors").hidden = !rows.length;
  byId("errors").tBodies[0].replaceChildren(...rows.map(row));
  const kind = chosenKind();
  setText("errors-note", note(rows.length, kind ? new Map(kinds).get(kind) : total));
}

function showKinds(kinds, total) {
  const select = byId("kind");
  const before = select.value;
  select.replaceChildren(
    element("option", `All kinds (${format.number(total)})`, { value: "" }),
    ...kinds.map(([kind, count]) => element("option", `${kind} (${format.number(count)})`, { value: kind })),
  );
  select.value = kinds.some(([kind]) => kind === before) ? before : "";
  byId("errors-choice").hidden = !total;
}

function note(shown, all) {
  if (!all) return "No row failed in the last run.";
  if (shown === all) return "";
  return `${format.number(shown)} of ${format.number(all)} are shown; all of them are in the error report.`;
}

function row({ key, code, message, attempts, at }) {
  const made = document.createElement("tr");
  made.append(
    element("td", key),
    element("td", code),
    element("td", message),
    element("td", format.number(attempts), { class: "number" }),
    element("td", format.moment(at)),
  );
  return made;
}
