// What the page itself notices of its session: that it has ended, which would otherwise look like a page that does
// nothing; and which of the folded tabs is which, so that the style sheet can leave out those a role cannot use.
(() => {
  const studio = (window.studio = window.studio ?? {});
  const real = window.fetch.bind(window);
  window.fetch = async (...asked) => {
    const answer = await real(...asked);
    const own = new URL(answer.url || location.href, location.href).origin === location.origin;
    if (answer.status === 401 && own) location.assign(`login${location.hash}`); // the address outlives the sign-in
    return answer;
  };
  studio.nameFolded = () => {
    for (const tab of document.querySelectorAll(".overflow-dropdown button")) tab.dataset.tab = tab.textContent.trim();
  };
  document.addEventListener("click", (event) => {
    if (event.target instanceof Element && event.target.closest(".overflow-menu")) studio.nameFolded();
  }, true);
})();
