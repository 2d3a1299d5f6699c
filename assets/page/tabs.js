// The tabs by keyboard, as tabs are elsewhere: one stop for Tab, in which Left, Right, Home and End go to another tab
// and open it. Those that did not fit are in their menu, which is the next stop.
(() => {
  const { byId } = window.studio;
  const TAB = "#studio-tabs [role=tab]";
  const STEPS = {
    ArrowRight: (at, count) => (at + 1) % count,
    ArrowLeft: (at, count) => (at - 1 + count) % count,
    Home: () => 0,
    End: (at, count) => count - 1,
  };
  const tabs = () => [...document.querySelectorAll(TAB)].filter((tab) => tab.checkVisibility());

  document.addEventListener("keydown", (event) => {
    const tab = event.target instanceof Element && event.target.closest(TAB);
    if (!tab || !Object.hasOwn(STEPS, event.key) || event.defaultPrevented) return;
    if (window.studio.isModified(event) || event.shiftKey) return; // Alt and Left is the browser's Back
    event.preventDefault();
    const shown = tabs();
    goTo(shown[STEPS[event.key](shown.indexOf(tab), shown.length)]);
  });

  // Gradio may fold other tabs away now, and then a button becomes another tab's: the name is what is followed.
  const goTo = (tab) => {
    const { id } = tab;
    tab.click();
    tab.focus();
    const follow = () => { if (document.activeElement?.closest(TAB)) byId(id)?.focus(); };
    requestAnimationFrame(() => requestAnimationFrame(follow));
  };

  new MutationObserver(() => {
    for (const tab of document.querySelectorAll(TAB)) {
      tab.tabIndex = tab.getAttribute("aria-selected") === "true" ? 0 : -1;
    }
  }).observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ["aria-selected"] });
})();
