// Keys for the verdict buttons, and the rule that one press judges one pair that was on the screen.
//
// A press is accepted only when the pair shown is not already being judged: the page is "busy" from the press
// until another pair (or the empty state) is in the document, or the request has ended. The server is idempotent
// by lease as well, so this is for the person's eyes, not for the record's sake.
(() => {
  const KEYS = {
    1: "vote-left", 2: "vote-right", t: "vote-tie", x: "vote-both-bad", s: "vote-skip", u: "vote-undo",
  };
  const BUSY_LIMIT_MS = 10000; // a lost request must not lock the page for ever
  const SESSION_KEY = "rlhf-studio-session";
  let busyLease = null;
  let busyTimer = 0;
  const judged = new Set(); // an undone pair comes back under a lease of its own, so these never return

  const shownLease = () => document.querySelector("#pair [data-lease]")?.dataset.lease ?? "";

  const settle = () => {
    busyLease = null;
    clearTimeout(busyTimer);
    document.querySelector("#pair")?.removeAttribute("aria-busy");
  };

  const begin = (isVote) => {
    busyLease = shownLease();
    if (isVote) judged.add(busyLease);
    clearTimeout(busyTimer);
    busyTimer = setTimeout(settle, BUSY_LIMIT_MS);
    document.querySelector("#pair")?.setAttribute("aria-busy", "true");
  };

  const newSession = () => {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  };

  // The session outlives a reload, so the very same lease is shown again. Without storage (private windows that
  // forbid it) it lives as long as the page.
  let session = null;
  const storedSession = () => {
    if (session) return session;
    try {
      session = localStorage.getItem(SESSION_KEY) || newSession();
      localStorage.setItem(SESSION_KEY, session);
    } catch {
      session = newSession();
    }
    return session;
  };

  window.studio = { ticket: () => [shownLease(), storedSession()], settle };

  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element && event.target.closest(".verdict");
    if (!button) return;
    const nothingShown = button.id !== "vote-undo" && !shownLease();
    if (busyLease !== null || nothingShown) {
      event.stopImmediatePropagation();
      event.preventDefault();
      return;
    }
    begin(button.id !== "vote-undo");
  }, true);

  const typing = (target) =>
    target instanceof Element && target.closest("input, textarea, select, [contenteditable=true], [role=listbox]");

  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing(event.target)) return;
    const button = document.getElementById(KEYS[event.key.toLowerCase()] ?? "");
    if (!button || button.offsetParent === null || button.disabled) return;
    event.preventDefault();
    button.classList.add("pressed");
    setTimeout(() => button.classList.remove("pressed"), 120);
    button.click();
  });

  // An answer that was on its way when the vote was cast may come after the vote's own and show the judged pair
  // again; then the server is asked what is really next.
  let wasShown = "";
  new MutationObserver(() => {
    const lease = shownLease();
    if (lease === wasShown) return;
    wasShown = lease;
    if (busyLease !== null && lease !== busyLease) settle();
    // After a moment: Gradio ignores an event of the kind whose answer it is just showing.
    if (judged.has(lease)) setTimeout(() => document.getElementById("show-again")?.click(), 60);
  }).observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ["data-lease"] });
})();
