// The card of a run while it is read: what a person opened or closed in it stays so, and a run that was picked in the
// list comes into sight. The card is written anew at every look, which is every second or two while a run works, and
// Gradio then writes the attributes as they came from the studio, `open` among them.
(() => {
  const opened = new Map(); // run and part → open, as a person left it
  const partOf = (details) => `${details.closest("[data-run]").dataset.run} ${details.dataset.part}`;
  let picked = null; // the run whose card is waited for

  document.addEventListener("click", (event) => {
    if (!(event.target instanceof Element)) return;
    const details = event.target.closest("[data-run] summary")?.parentElement;
    if (details) opened.set(partOf(details), !details.open); // the browser turns it over after this
    const closed = event.target.closest("[data-run] [data-close]")?.closest("details");
    if (closed) {
      opened.set(partOf(closed), false);
      closed.open = false;
      closed.querySelector("summary").focus(); // the button that had the focus is gone
    }
    const pick = event.target.closest("#runs-table [data-pick]");
    if (pick) { picked = pick.dataset.pick; bringIntoSight(); }
  });

  const keepOpen = () => {
    for (const details of document.querySelectorAll("[data-run] details")) {
      const wanted = opened.get(partOf(details));
      if (wanted !== undefined && details.open !== wanted) details.open = wanted;
    }
  };

  const bringIntoSight = () => {
    const card = picked && document.querySelector(`[data-run="${CSS.escape(picked)}"]`);
    if (!card) return;
    picked = null;
    const { top } = card.getBoundingClientRect();
    if (top < 0 || top > innerHeight / 2) card.scrollIntoView({ block: "start" });
  };

  // Called after a change and before the page is drawn, so that nothing flickers.
  new MutationObserver(() => { keepOpen(); bringIntoSight(); }).observe(document, {
    childList: true, subtree: true, attributes: true, attributeFilter: ["open", "data-run", "data-part"],
  });
})();
