// Whether this page is open: while it is, the studio hears so every few seconds and its pairs stay with it. A page that
// is closed says so, and one that another window has overtaken asks what is on the screen now.
(() => {
  const studio = window.studio;
  const PING_MS = 20000; // three fit into the minute after which a silent page counts as closed
  const FIRST_MS = 3000; // after a reload: the page before it has said that it closes
  const PAUSE_MS = 2000; // between two pings for another reason than the clock
  const JUDGED_KEY = "rlhf-studio-judged";
  const LEFT_KEY = "rlhf-studio-left";
  let pinged = -Infinity;

  const ping = () => {
    if (!studio.stage() || !studio.mayAsk() || performance.now() - pinged < PAUSE_MS) return;
    pinged = performance.now();
    studio.send("alive", { leases: studio.deck(), at_work: false });
  };
  setTimeout(ping, FIRST_MS);
  setInterval(ping, PING_MS);
  addEventListener("focus", ping);
  addEventListener("pageshow", (event) => { if (event.persisted) ping(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ping(); });

  addEventListener("pagehide", () => {
    if (!studio.deck().length) return;
    const said = JSON.stringify({ session: studio.session() });
    navigator.sendBeacon?.("api/tasks/leave", new Blob([said], { type: "application/json" }));
    studio.stored(LEFT_KEY, String(Date.now()));
  });

  // Windows of one browser share its session and show the same pair.
  const elsewhere = new Set(); // leases that another window of this browser has judged
  studio.judgedHere = (lease) => studio.stored(JUDGED_KEY, JSON.stringify([lease, Date.now()]));
  studio.judgedElsewhere = (lease) => elsewhere.has(lease);
  addEventListener("storage", (event) => {
    if (event.key === LEFT_KEY) ping();
    if (event.key !== JUDGED_KEY || !event.newValue) return;
    const [lease] = JSON.parse(event.newValue);
    elsewhere.add(lease);
    if (studio.deck().includes(lease) && studio.mayAsk()) studio.send("deck");
  });
})();
