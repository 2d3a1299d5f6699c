// Keys: which press does what, shown on every button, changed in the overlay that "?" opens.
//
// A new key is a line in ``ACTIONS`` of studio/page/views/labeling/tools.py, which the overlay is made from, and a function
// of the same name in ``studio.acts``, in the script that does it.
//
// What a press is called is said in key_names.js. Nothing fires while somebody types, with Ctrl, Alt, AltGr or Meta, or from a
// key that is held down.
(() => {
  const studio = window.studio;
  const { byId } = studio;
  const KEYS = "rlhf-studio-keys";
  const RANKING = new Set(["rank-submit", "rank-rest", "rank-back"]);
  const MARKS = { "+": "mark-good", "-": "mark-bad" };
  const DIALOGS = new Set(["keys", "figures"]); // their keys close them again, and go from one to the other
  const JUDGING = /^((left|right)(-\d)?|tie|both-bad|skip|rank-submit|edit-choose)$/;
  const PAIRING = /^(left|right|tie)(-\d)?$/;

  const own = () => Object.fromEntries(
    Object.entries(JSON.parse(studio.stored(KEYS) ?? "{}")).filter(([, key]) => studio.isAssignable(key)));
  const rows = () => [...document.querySelectorAll("#keys-dialog tr[data-action]")];
  const keyFor = (action) => own()[action] ?? rows().find((row) => row.dataset.action === action)?.dataset.key ?? "";

  // A pair and a ranking share some keys; what is on the screen decides.
  const actionFor = (key) => {
    const isRank = studio.ranking.isRank();
    const fits = (action) => (isRank ? !PAIRING.test(action) : !RANKING.has(action));
    const find = (wanted) => rows().map((row) => row.dataset.action)
      .find((action) => fits(action) && keyFor(action) === wanted);
    return find(key) ?? (/^Shift\+\p{L}$/u.test(key) ? find(key.slice(6)) : undefined);
  };

  const isTyping = (target) => target instanceof Element && target.closest(
    "input:not([type=radio]):not([type=checkbox]), textarea, select, [contenteditable=true], [role=listbox]");
  const isOwnKey = (target, key) => target instanceof Element && (
    (target.closest("input[type=radio], input[type=checkbox]") && /^(Arrow|Space$)/.test(key)) ||
    (target.closest("button, a, summary, [role=tab]") && (key === "Enter" || key === "Space")) ||
    (target.closest("[role=tab]") && /^(Arrow|Home$|End$)/.test(key)));

  const run = (action) => {
    const buttons = document.querySelectorAll(`[data-action="${action}"]:not(tr)`);
    buttons.forEach((button) => button.classList.add("pressed"));
    setTimeout(() => buttons.forEach((button) => button.classList.remove("pressed")), 120);
    studio.acts[action]?.();
  };
  studio.run = run;

  document.addEventListener("keydown", (event) => {
    if (event.isComposing || !studio.isShown()) return;
    if (capturing) return capture(event);
    if (studio.isModified(event)) {
      const isKept = event.ctrlKey && !event.altKey && event.key === "Enter" && event.target.id === "edit-text";
      if (isKept) { event.preventDefault(); run("edit-choose"); }
      return;
    }
    if (event.key === "Escape") return escape(event);
    const names = studio.keyNames(event), [key] = names;
    if (isTyping(event.target) || isOwnKey(event.target, key)) return;
    const isRepeatable = studio.reading.views.marking && key.includes("Arrow");
    if (event.repeat && !isRepeatable) return;
    if (document.querySelector("dialog[open]") && !names.some((one) => DIALOGS.has(actionFor(one)))) return;
    if (inReading(names) || names.some(handled)) event.preventDefault();
  });

  // While marking, + and - are looked for first: on some layouts they stand where a digit does.
  const inReading = (names) => studio.reading.views.marking
    && [...names].sort((a, b) => (b in MARKS) - (a in MARKS)).some(studio.reading.markingKey);

  const handled = (key) => {
    if (studio.panel() && studio.panelKey(key)) return true;
    const digit = /^(Shift\+)?([1-9])$/.exec(key);
    if (digit && studio.ranking.isRank()) { studio.ranking.place(Number(digit[2]) - 1, Boolean(digit[1])); return true; }
    const action = actionFor(key) ?? MARKS[key]; // a key that a person has chosen comes first
    if (!action) return false;
    run(action);
    return true;
  };

  const escape = (event) => {
    const dialog = document.querySelector("dialog[open]");
    if (dialog) closeDialog(dialog);
    else if (!studio.closePanel() && !studio.closeDrawer() && !foldTools()) {
      if (isTyping(event.target) && event.target.closest("#label-tab")) event.target.blur();
      else return;
    }
    event.preventDefault();
  };

  document.addEventListener("click", (event) => {
    if (event.target instanceof Element && !event.target.closest("#tools-menu")) foldTools();
    const button = event.target instanceof Element && event.target.closest("button[data-action]");
    // The second half of a double click would fall on the pair that was painted between the two, which nobody has read.
    if (button && !(event.detail > 1 && JUDGING.test(button.dataset.action))) studio.acts[button.dataset.action]?.();
    const dialog = event.target instanceof Element && event.target.closest(".dialog-close")?.closest("dialog");
    if (dialog) closeDialog(dialog);
    const change = event.target instanceof Element && event.target.closest("[data-change]");
    if (change) begin(change);
    if (event.target.id === "keys-reset") { studio.stored(KEYS, null); studio.showKeys(); }
  });

  // Of the buttons that settle a dispute the next press would fall on a task that nobody has read.
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element && event.target.closest("#settle-bar button");
    if (!button) return;
    if (event.detail > 1) event.stopImmediatePropagation();
    button.blur();
  }, true);

  // What a low or narrow window folds away; it is in sight by itself in a larger one.
  const unfold = (id, open = byId(id).getAttribute("aria-expanded") !== "true") => {
    byId(id).setAttribute("aria-expanded", String(open));
    byId(byId(id).getAttribute("aria-controls")).classList.toggle("unfolded", open);
    studio.showKeys();
  };
  studio.acts.tools = () => unfold("tools-menu");
  studio.acts.strengths = () => unfold("strengths-menu");
  const fold = (id) => {
    const isOpen = byId(id)?.getAttribute("aria-expanded") === "true";
    if (isOpen) unfold(id, false);
    return isOpen;
  };
  const foldTools = () => fold("tools-menu");
  studio.foldAll = () => ["tools-menu", "strengths-menu"].forEach(fold);

  // One stop for Tab per toolbar, arrows inside it: the verdicts are few stops away.
  const rove = (bar, wanted) => {
    const shown = [...bar.querySelectorAll("button")].filter((button) => button.checkVisibility());
    const stop = shown.includes(wanted) ? wanted : shown[0];
    bar.querySelectorAll("button").forEach((button) => { button.tabIndex = button === stop ? 0 : -1; });
    return shown;
  };
  const moveInBar = (event) => {
    const bar = event.target instanceof Element && event.target.closest("[role=toolbar]");
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!bar || !step || studio.reading.views.marking || studio.isModified(event)) return; // Alt and Left is Back
    const shown = rove(bar, event.target);
    const next = shown[(shown.indexOf(event.target) + step + shown.length) % shown.length];
    rove(bar, next);
    next?.focus();
  };
  document.addEventListener("keydown", moveInBar);

  // The overlay ------------------------------------------------------------------------------------------

  let opener = null;
  let capturing = null; // the button of the act that waits for its key
  studio.dialog = (id) => {
    const dialog = byId(id);
    if (dialog.open) return closeDialog(dialog);
    document.querySelectorAll("dialog[open]").forEach(closeDialog);
    opener = document.activeElement;
    dialog.show(); // not modal: Tab may leave it
    dialog.querySelector(".dialog-close").focus();
    return undefined;
  };
  const closeDialog = (dialog) => {
    dialog.close();
    if (capturing) { capturing = null; studio.showKeys(); } // else the next verdict would become somebody's key
    (opener?.isConnected && opener !== document.body ? opener : document.activeElement)?.focus?.({ preventScroll: true });
    if (!opener || opener === document.body) document.activeElement?.blur?.();
  };
  studio.acts.keys = () => studio.dialog("keys-dialog");

  const begin = (button) => {
    studio.showKeys();
    capturing = button;
    button.textContent = "Press a key …";
  };
  const capture = (event) => {
    if (["Shift", "Control", "Alt", "AltGraph", "Meta"].includes(event.key)) return;
    if (event.key === "Tab") { capturing = null; studio.showKeys(); return; }
    if (event.key === "Escape" && !studio.isModified(event)) {
      event.preventDefault();
      capturing = null;
      studio.showKeys();
      return;
    }
    const key = studio.keyName(event);
    if (studio.isModified(event) || !studio.isAssignable(key)) {
      // The browser keeps what is its own; the act goes on waiting for a key.
      const pressed = [event.ctrlKey && "Ctrl", event.altKey && "Alt", event.metaKey && "Meta", key].filter(Boolean).join("+");
      byId("keys-says").textContent = `${pressed} belongs to the browser. `
        + "Press a letter, a digit, a sign, an arrow, Home, End, Space, Enter, Backspace, Delete or Insert, alone or with Shift.";
      return;
    }
    event.preventDefault();
    const action = capturing.dataset.change, before = keyFor(action);
    capturing = null;
    if (key !== before) assign(action, key, before);
    studio.showKeys();
  };
  // A key that is taken changes places with the one it replaces, so that no act is left without.
  const assign = (action, key, before) => {
    const isShared = (other) => RANKING.has(action) !== RANKING.has(other) && (PAIRING.test(action) || PAIRING.test(other));
    const taken = rows().map((row) => row.dataset.action)
      .find((other) => other !== action && keyFor(other) === key && !isShared(other));
    studio.stored(KEYS, JSON.stringify({ ...own(), [action]: key, ...(taken ? { [taken]: before } : {}) }));
    const words = (wanted) => document.querySelector(`#keys-dialog [data-action="${wanted}"] td:nth-child(2)`)?.textContent;
    byId("keys-says").textContent = taken
      ? `"${words(action)}" is now ${key}; "${words(taken)}" moved to ${before}.` : `"${words(action)}" is now ${key}.`;
  };

  studio.showKeys = () => {
    document.querySelectorAll("[data-key-of]").forEach((cap) => { cap.textContent = keyFor(cap.dataset.keyOf); });
    document.querySelectorAll("[data-change]").forEach((button) => { button.textContent = "Change"; });
    document.querySelectorAll("button[data-action]").forEach((button) => {
      const key = keyFor(button.dataset.action);
      if (key) button.setAttribute("aria-keyshortcuts", key);
    });
    document.querySelectorAll("[role=toolbar]").forEach((bar) => rove(bar, bar.querySelector("button[tabindex='0']")));
  };
})();
