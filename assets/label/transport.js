// Requests of the labeling screen to /api/label: one POST per act, JSON in both directions.
//
// ``studio.ask(act, fields, done, lost)`` sends a request and returns its number at once. ``done`` gets the answer.
// ``lost`` is called when the studio refused the request, with ``{status, detail}``; when it was not reached, or has not
// answered for a while, with nothing. A late answer goes to ``done`` all the same, since the studio has done what it
// says. Answers may come in another order than the requests went out: each carries the number of its request.
(() => {
  const studio = (window.studio = window.studio ?? {});
  const LIMIT_MS = 10000; // a lost request must not lock the page for ever
  const KEEPALIVE_BYTES = 32 * 1024; // of a draft that is saved while the page is closed: browsers let 64 KiB in all outlive it
  const SESSION_KEY = "rlhf-studio-session";

  studio.stored = (key, value) => {
    try {
      if (value === undefined) return localStorage.getItem(key);
      value === null ? localStorage.removeItem(key) : localStorage.setItem(key, value);
    } catch { /* a private window that forbids it */ }
    return value ?? null;
  };

  // The session outlives a reload, so the very same lease is shown again.
  let session = null;
  const newSession = () => {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  };
  studio.session = () => (session ??= studio.stored(SESSION_KEY) ?? studio.stored(SESSION_KEY, newSession()));

  let seq = 0;
  studio.ask = (act, fields, done, lost) => {
    seq += 1;
    post(act, JSON.stringify({ seq, session: studio.session(), ...fields }), done, lost);
    return seq;
  };

  const post = async (act, body, done, lost) => {
    let isAwaited = true; // report a request as lost at most once
    const fail = (refusal) => {
      if (isAwaited) lost(refusal);
      isAwaited = false;
    };
    const overdue = setTimeout(fail, LIMIT_MS);
    let answer;
    try {
      const response = await fetch(`api/label/${act}`, {
        method: "POST", headers: { "Content-Type": "application/json" }, body, keepalive: outlivesPage(act, body),
      });
      answer = await response.json();
      if (!response.ok) return fail({ status: response.status, detail: answer.detail });
    } catch {
      return fail(); // the studio was not reached, or a proxy answered with a page of its own
    } finally {
      clearTimeout(overdue);
    }
    return done(answer); // outside of try: an error of the page is not a lost request
  };

  const outlivesPage = (act, body) =>
    act === "draft" && document.hidden && new TextEncoder().encode(body).length < KEEPALIVE_BYTES;
})();
