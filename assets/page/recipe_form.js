// The form of a recipe comes into sight when a button of the Overview has opened it, and takes the focus.
(() => {
  const PATIENCE_MS = 10000; // how long the form is waited for
  let asked = -Infinity;

  document.addEventListener("click", (event) => {
    const pick = event.target instanceof Element && event.target.closest("#overview-round [data-pick]");
    if (pick && /^(start|fork) /.test(pick.dataset.pick)) asked = performance.now();
    bringIntoSight();
  });

  const bringIntoSight = () => {
    const name = performance.now() - asked < PATIENCE_MS && document.querySelector("#recipe-name :is(input, textarea)");
    if (!name || !name.checkVisibility()) return;
    asked = -Infinity;
    name.closest("#recipe-form").scrollIntoView({ block: "start" });
    name.focus({ preventScroll: true });
  };

  new MutationObserver(bringIntoSight).observe(document, {
    childList: true, subtree: true, attributes: true, attributeFilter: ["class", "style"],
  });
})();
