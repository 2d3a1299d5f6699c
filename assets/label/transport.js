// Requests of the labeling screen to /api/label: one POST per act, JSON in both directions.
//
// ``studio.ask(act, fields, done, lost)`` sends a request and returns at once. ``done`` gets the answer; ``lost`` gets a
// sentence when the studio refused the request, and none when it was not reached. Answers may come in another order
// than the requests went out: each carries the number of its request.
(() => {
  const studio = (window.studio = window.studio ?? {});
  const LIMIT_MS = 10000; // a lost request must not lock the page for ever
  const KEEPALIVE_BYTES = 32 * 1024; // of drafts alone: browsers let 64 KiB in all outlive their page, and send it slower
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
    const request = {
      method: "POST", headers: { "Content-Type": "application/json" }, body,
      signal: AbortSignal.timeout(LIMIT_MS), keepalive: act === "draft" && body.length < KEEPALIVE_BYTES,
    };
    let answer;
    try {
      const response = await fetch(`api/label/${act}`, request);
      answer = await response.json();
      if (!response.ok) return lost(response.status < 500 || response.status === 503 ? answer.detail : undefined);
    } catch {
      return lost(); // not reached, out of time, or a proxy's page in place of an answer
    }
    return done(answer);
  };
})();
