// The card of a run while it is read: what a person opened or closed in it stays so. The card is written anew at
// every look, which is every second or two while a run works, and Gradio then writes the attributes as they came from
// the studio, `open` among them.
(() => {
  const opened = new Map(); // run and part → open, as a person left it
  const partOf = (details) => `${details.closest("[data-run]").dataset.run} ${details.dataset.part}`;

  document.addEventListener("click", (event) => {
    if (!(event.target instanceof Element)) return;
    const details = event.target.closest("[data-run] summary")?.parentElement;
    if (details) opened.set(partOf(details), !details.open); // the browser turns it over after this
  });

  const keepOpen = () => {
    for (const details of document.querySelectorAll("[data-run] details")) {
      const wanted = opened.get(partOf(details));
      if (wanted !== undefined && details.open !== wanted) details.open = wanted;
    }
  };

  // Called after a change and before the page is drawn, so that nothing flickers.
  new MutationObserver(keepOpen).observe(document, {
    childList: true, subtree: true, attributes: true, attributeFilter: ["open", "data-run", "data-part"],
  });
})();
