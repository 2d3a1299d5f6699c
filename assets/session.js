// Two things the page itself notices: that its session has ended, and that it is shown under another prefix than
// the studio was told of. Both would otherwise look like a page that does nothing.
(() => {

  const real = window.fetch.bind(window);
  window.fetch = async (...asked) => {
    const answer = await real(...asked);
    const own = new URL(answer.url || location.href, location.href).origin === location.origin;
    if (answer.status === 401 && own) location.assign("login");
    return answer;
  };
})();
