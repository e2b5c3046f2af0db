// What the parts of this page share. Data reaches the page as text, never as markup.

export const byId = (id) => document.getElementById(id);

/** Leaves an element alone whose text is right, so that selections and readers are not disturbed. */
export function setText(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

/** For a screen reader. */
export const say = (text) => setText("said", text);

export function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Closes a dialog on its cancel button; Escape and the return of the focus are the browser's. */
export function cancellable(dialog) {
  dialog.querySelector("[value=cancel]").addEventListener("click", () => dialog.close());
}

/** Asks before `act`; what it throws is shown in the dialog. */
export function ask({ title, text, yes, act }) {
  const dialog = byId("ask-dialog");
  setText("ask-title", title);
  setText("ask-text", text);
  setText("ask-yes", yes);
  setText("ask-error", "");
  byId("ask-form").onsubmit = async (event) => {
    event.preventDefault();
    const button = byId("ask-yes");
    button.disabled = true;
    try {
      await act();
      dialog.close();
    } catch (error) {
      setText("ask-error", error.message);
    } finally {
      button.disabled = false;
    }
  };
  dialog.showModal();
}
