// The labeling screen: what is on it, what was said of it, and what the studio answered.
//
// The server is the record. A press judges the one pair that was on the screen: from the press until the answer the
// page is busy and takes no other. The pair after it was fetched ahead, so an answer only has to say "kept" for the
// next one to stand there. Everything typed is kept as a draft on the server, and a copy lies in this browser until
// the server has said so.
(() => {
  const studio = (window.studio = window.studio ?? {});
  const DRAFT_PAUSE_MS = 300;
  const AGAIN_MS = 3000; // before words that were not delivered are sent again
  const LOOK_MS = 1000; // between two looks while the pool is empty
  const BEAT_MS = 5 * 60000; // how often the studio hears that somebody is at work, so that their tasks stay theirs
  const IDLE_MS = 30000; // without a sign of life for so long, nobody is reading
  const PASSING_MS = 8000; // how long it is told that an act was done
  const MIRROR_KEY = "rlhf-studio-draft";
  const PENDING_KEY = "rlhf-studio-pending"; // the lease whose vote has no answer yet; the page may reload in between
  const UNREACHED = "The studio is away: not saved yet. Press again when it is back.";
  const ELSEWHERE = "That pair was judged in another window. Here is the next one.";
  const UNSAVED = "The studio did not answer, so this is not saved yet. Press again.";

  const { stored } = studio;
  const byId = (id) => document.getElementById(id);
  studio.byId = byId;

  // Requests and answers -----------------------------------------------------------------------------------

  let lastDecisive = 0; // the newest request that changes what is on the screen; older answers do not count
  const cache = new Map(); // lease → item with its markup
  let deck = []; // leases this browser holds, the one on the screen first
  let stage = null;
  let busy = 0; // the request that is being answered
  let guidelines = { version: -1, criteria: [], asks_rationale: false };

  // ``ahead`` asks what ``deck`` does, for the pair after the one on the screen.
  const send = (act, fields = {}) => {
    const asked = { have: [...cache.keys()], guidelines: guidelines.version, ...fields };
    const number = studio.ask(
      act === "ahead" ? "deck" : act, asked, (answer) => receive(act, answer), (refusal) => lost(act, asked, number, refusal),
    );
    if (act === "vote" || act === "undo") lastDecisive = number;
    return number;
  };
  studio.send = send;

  const SOON = [408, 429, 502, 503, 504]; // what may go well a little later
  const lost = (act, asked, number, refusal) => {
    const why = !refusal || refusal.status > 503 || [500, 502].includes(refusal.status) ? UNREACHED : refusal.detail;
    if (number === busy) failed(why);
    else if (act === "draft" && asked.lease === stage?.lease) draftState("Not saved yet");
    else if (act === "late" && (!refusal || SOON.includes(refusal.status))) setTimeout(() => studio.deliverLate(asked.lease), AGAIN_MS);
    else if (act === "add") say(why, "bad");
    else if (act === "today") studio.showToday(null);
  };

  const receive = (act, answer) => {
    if (act === "draft") return drafted(answer);
    if (act === "figures") return studio.showFigures?.(answer.figures);
    if (act === "today") return studio.showToday?.(answer);
    if (act === "late") return studio.delivered(answer);
    if (act === "add") return studio.lateAdded(answer);
    if (answer.kept) return undefined;
    (answer.deck ?? []).filter((item) => item.html).forEach((item) => cache.set(item.lease, item));
    if (answer.seq < lastDecisive) return undefined; // of an older act it says nothing new
    settle();
    const unheard = stored(PENDING_KEY);
    stored(PENDING_KEY, null);
    if (answer.refused) return say(answer.refused, "bad");
    if (answer.status) showStatus(answer.status);
    const isNews = Boolean(answer.guidelines && studio.showGuidelines?.((guidelines = answer.guidelines)));
    const asked = (head) => `${isNews ? "The guidelines have changed. " : ""}${requestWords(head)}`;
    const before = stage?.lease;
    if (act === "vote" && stage) studio.judgedHere(stage.lease);
    arrange(answer, act);
    studio.showLate?.();
    if (answer.messages) studio.showMessages?.(answer.messages);
    if (answer.late) studio.lateWords(answer.late);
    if (act === "undo") say(answer.note, before === stage?.lease ? "" : "good", asked("Request"));
    else if (answer.note) say(answer.note, "", asked("Next request"));
    else if (act === "vote") afterPaint(answer.seq, () => say(saidWords, "good", asked("Next request"), true));
    else if (isNews) say("The guidelines have changed.");
    else if (act === "deck" && unheard && unheard === stage?.lease) say(UNSAVED, "bad");
    else if (before && before !== stage?.lease && studio.judgedElsewhere(before)) say(ELSEWHERE);
    return undefined;
  };
  studio.filled = () => {
    send("deck");
    say("Asked for new replies; pairs appear here by themselves.", "good");
  };
  // The next pair is to be read before what is said of the last one, unless something else has happened by then.
  const afterPaint = (seq, act) => {
    const said = sayings;
    const late = () => { if (!busy && seq === lastDecisive && said === sayings) act(); };
    document.hidden ? late() : requestAnimationFrame(() => setTimeout(late));
  };

  // What was done is said in words, with the beginning of what is to be judged next: by then another pair is in sight.
  let saidWords = "";
  const STRENGTHS = { 1: "slightly better", 2: "clearly better", 3: "much better" };
  const wordsOf = (said) => {
    if (said.skip_reason) return "Skipped.";
    if (said.ranking) return `Saved: ${byId("rank-order").textContent}.`;
    const bad = stage.kind === "rank" ? "all bad" : "both bad";
    const verdict = said.verdict === "both_bad" ? bad : said.verdict;
    return `Saved: ${verdict}${said.strength ? ` is ${STRENGTHS[said.strength]}` : ""}.`;
  };
  const requestWords = (head) => {
    const turns = stage ? [...byId("pair").querySelectorAll(".prompt-card .turn .model-text")] : [];
    if (!turns.length) return "No pair is left for now.";
    const asked = turns.at(-1).textContent.trim();
    return `${head}: ${asked.length > 120 ? `${asked.slice(0, 120)} …` : asked}`;
  };
  // Moments come in the studio's time; here they are written as this person's clock shows them.
  const writeTimes = (place) => place.querySelectorAll("time[datetime]").forEach((time) => {
    const moment = new Date(time.dateTime);
    if (!isNaN(moment)) time.textContent = moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  });
  const showStatus = (markup) => {
    byId("label-status").innerHTML = markup;
    writeTimes(byId("label-status"));
    studio.showGoal?.(Number(byId("label-status").querySelector("[data-total]")?.dataset.total ?? 0));
  };

  const settle = () => {
    busy = 0;
    byId("pair")?.removeAttribute("aria-busy");
  };
  const failed = (why) => {
    settle();
    say(why, "bad");
    draftState("Not saved yet: no answer. What you typed is kept", "bad"); // beside the buttons, which are always in sight
  };
  const hold = (number) => {
    busy = number;
    say(""); // what was said of the press before
    byId("pair")?.setAttribute("aria-busy", "true");
  };

  // What is said stands beside the tools and is read out by a screen reader; ``more`` is only read out. That an act was
  // done is told for a while, with a button to undo it; what went wrong stays until the next press.
  let sayings = 0, passing = 0;
  const say = (words, tone = "", more = "", canUndo = false) => {
    sayings += 1;
    write("label-says", words, tone);
    const place = byId("label-says");
    if (!words || !place) return;
    if (more) place.append(Object.assign(document.createElement("span"), { className: "unseen", textContent: ` ${more} ` }));
    if (canUndo) place.append(undoButton());
    clearTimeout(passing);
    place.classList.remove("past");
    if (tone === "good") passing = setTimeout(() => place.classList.add("past"), PASSING_MS);
  };
  const undoButton = () => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Undo ", title: "Undo this judgment" });
    button.dataset.action = "undo";
    button.append(byId("vote-undo").querySelector("kbd").cloneNode(true));
    return button;
  };
  const write = (id, words, tone) => {
    const place = byId(id);
    if (place) { place.textContent = words; place.dataset.tone = tone; }
  };
  studio.say = say;

  // The stage --------------------------------------------------------------------------------------------

  let looking = 0;
  const arrange = (answer, act) => {
    deck = answer.deck.map((item) => item.lease).filter((lease) => cache.has(lease));
    // What was typed about a pair that goes without a vote from here is not lost.
    if (act !== "vote" && stage && deck[0] !== stage.lease) studio.rescue(stage.lease, content());
    [...cache.keys()].filter((lease) => !deck.includes(lease)).forEach((lease) => cache.delete(lease));
    clearTimeout(looking);
    if (!deck.length) {
      clear(answer.empty);
      looking = setTimeout(look, LOOK_MS);
    } else if (stage?.lease !== deck[0]) {
      paint(cache.get(deck[0]));
    } else if (isUnseen) {
      showLastTurn();
      studio.showKeys?.(); // what is hidden cannot take its place in the order of Tab
    }
    if (deck.length === 1 && answer.more) send("ahead");
  };

  // Nothing is asked for while the person is on another tab or in the menu of folded tabs.
  studio.mayAsk = () => !busy && mayLook();
  const mayLook = () => studio.isShown() && !document.querySelector(".overflow-dropdown:not(.hide)");
  const look = () => {
    if (mayLook()) send("deck");
    else looking = setTimeout(look, LOOK_MS);
  };
  // The very first request may be lost as well.
  setInterval(() => { if (!stage && !deck.length && !busy && mayLook()) send("deck"); }, 3 * LOOK_MS);

  const clear = (empty) => {
    stage = null;
    const pair = byId("pair");
    if (pair.dataset.empty !== empty) {
      pair.innerHTML = empty;
      writeTimes(pair);
    }
    pair.dataset.empty = empty;
    document.body.dataset.task = "";
    forget();
    studio.painted?.(null);
  };

  const paint = (item) => {
    stage = item;
    const pair = byId("pair"), at = document.activeElement;
    const wasAtOld = pair.contains(at) || (at instanceof Element && at.closest("#verdicts button"));
    pair.dataset.empty = "";
    pair.innerHTML = item.html;
    document.body.dataset.task = item.kind;
    document.body.dataset.size = item.texts.length;
    restore(item);
    say("");
    studio.painted?.(item);
    // A button that judged the pair before must not judge this one by a press that was meant to scroll.
    if (wasAtOld) pair.querySelector(".pair")?.focus({ preventScroll: true });
    if (pair.getBoundingClientRect().top < 0) pair.scrollIntoView({ block: "start" });
    showLastTurn();
  };

  // The last turn is what the replies answer: all of it where it has room, else its beginning. What is painted behind
  // another tab, as after a reload there, cannot be scrolled yet.
  let isUnseen = false;
  const showLastTurn = () => {
    isUnseen = !studio.isShown();
    const card = byId("pair").querySelector(".prompt-card");
    const turns = [...card?.querySelectorAll(".turn") ?? []].map((turn) => turn.getBoundingClientRect().top);
    if (turns.length) card.scrollTop = turns.at(-1) - turns[0];
  };

  // Called once Gradio has built the page, which may build its pieces again later.
  studio.begin = () => { send("deck"); studio.deliverLate(); };
  new MutationObserver(() => {
    const pair = byId("pair");
    if (stage && pair && !pair.querySelector("[data-lease]")) paint(stage);
  }).observe(document, { childList: true, subtree: true });

  studio.stage = () => stage;
  studio.deck = () => deck;
  studio.guidelines = () => guidelines;
  // Asked at every key: read from what Gradio writes on the tab, for a computed style would be worked out anew.
  studio.isShown = () => Boolean(byId("pair")) && byId("label-tab")?.style.display !== "none";

  // Remarks and drafts -----------------------------------------------------------------------------------

  let work = {};
  let dirty = 0;
  studio.work = () => work;

  const restore = (item) => {
    const mirror = JSON.parse(stored(MIRROR_KEY) ?? "null");
    const unsent = mirror?.lease === item.lease;
    work = structuredClone((unsent ? mirror.content : item.draft) ?? {});
    studio.clock.start(work.active_ms ?? 0);
    clearTimeout(dirty);
    dirty = 0;
    if (unsent) studio.changed();
    draftState(Object.keys(work).some((name) => name !== "active_ms") ? "Draft restored" : "");
  };
  const forget = () => {
    work = {};
    clearTimeout(dirty);
    dirty = 0;
    draftState("");
  };

  const content = () => {
    const kept = { ...work, active_ms: studio.clock.read() };
    return Object.fromEntries(Object.entries(kept).filter(([, value]) => value !== null && value !== ""));
  };
  const saveDraft = () => {
    clearTimeout(dirty);
    dirty = 0;
    if (stage && !busy) send("draft", { lease: stage.lease, content: content() });
  };
  studio.changed = () => {
    if (!stage) return;
    stored(MIRROR_KEY, JSON.stringify({ lease: stage.lease, content: content() }));
    draftState("Saving …");
    clearTimeout(dirty);
    dirty = setTimeout(saveDraft, DRAFT_PAUSE_MS);
  };
  const drafted = (answer) => {
    if (!stage || dirty || answer.lease !== stage.lease) return;
    if (!answer.kept) return draftState("Not saved yet");
    stored(MIRROR_KEY, null);
    draftState("Draft saved");
  };
  const draftState = (words, tone = "") => write("draft-state", words, tone);
  addEventListener("visibilitychange", () => { if (document.hidden && dirty) saveDraft(); });
  addEventListener("blur", () => { if (dirty) saveDraft(); });

  // Time on task -----------------------------------------------------------------------------------------

  studio.clock = (() => {
    let active = 0, last = 0, alive = 0;
    let beaten = -BEAT_MS; // a reloaded page may show a lease that is about to end
    const beat = () => {
      if (!stage || busy || !mayLook() || performance.now() - beaten < BEAT_MS) return;
      beaten = performance.now();
      send("alive", { leases: deck });
    };
    const tick = () => {
      const at = performance.now();
      if (stage && !document.hidden && at - alive < IDLE_MS && studio.isShown()) active += Math.min(at - last, 1000);
      last = at;
    };
    const signs = ["pointermove", "pointerdown", "keydown", "wheel", "touchstart", "scroll"];
    signs.forEach((sign) => addEventListener(sign, () => { tick(); alive = performance.now(); beat(); }, { passive: true }));
    setInterval(tick, 250);
    return {
      start: (from) => { active = from; last = alive = performance.now(); },
      read: () => { tick(); return Math.round(active); },
    };
  })();

  // Verdicts ---------------------------------------------------------------------------------------------

  const judge = (said) => {
    if (!stage || busy) return;
    clearTimeout(dirty);
    dirty = 0;
    const remarks = content();
    delete remarks.ranking;
    stored(PENDING_KEY, stage.lease);
    saidWords = wordsOf(said);
    hold(send("vote", { lease: stage.lease, said: { ...remarks, ...said } }));
  };
  studio.judge = judge;
  const chosen = (verdict, strength) => () => judge(strength ? { verdict, strength } : { verdict });

  studio.acts = {
    left: chosen("left"), right: chosen("right"), tie: chosen("tie"), "both-bad": chosen("both_bad"),
    skip: () => judge({ skip_reason: "not_said" }),
    undo: () => { if (!busy) hold(send("undo")); },
    refresh: () => send("deck"),
  };
  for (const side of ["left", "right"]) {
    for (const strength of [1, 2, 3]) studio.acts[`${side}-${strength}`] = chosen(side, strength);
  }

  // What a tab change or a long absence may have made stale is asked for anew, and nothing is judged meanwhile.
  document.addEventListener("click", (event) => {
    const tab = event.target instanceof Element && event.target.closest("#studio-tabs [role=tab]");
    if (tab && stage && tab.textContent.trim() === "Label" && !busy) hold(send("deck"));
  });
})();
