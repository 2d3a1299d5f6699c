// The address says which tab is open and what is picked in it (#train/run-…), so that a reload, the browser's Back and
// a copied link lead to the same place. It names nothing but a tab and a row of its table: a tab that is not there, or
// not for this role, is the first tab of the role, and a row that is not there is none; but of the runs only the newest
// are rows, and an older one is asked for by its id. The first tab of researchers is the Overview, of others Label.
(() => {
  const studio = window.studio;
  const TABLES = {
    overview: "overview-recipes", label: "", playground: "chat-list", train: "runs-table", policies: "policies-table", datasets: "datasets-table",
    review: "annotators-table", people: "users-table",
  };
  const BUILT_OPEN = "label"; // the tab that is open before the role is known
  const RUN_ID = /^run-[a-z0-9]{4,40}$/;
  const PATIENCE_MS = 15000; // how long a row is waited for whose table is on its way
  const SHOW_MS = 3000; // after which the tab that is open is shown, although the role is not known

  let first = BUILT_OPEN;
  let isBegun = false;
  let hasRole = () => false;
  let wanted = null; // the tab and row that the address names, until they are open
  let patience = 0;
  let isOwnPress = false;

  const read = () => {
    const [, tab, rest = ""] = /^#([a-z]+)(?:\/(.+))?$/s.exec(location.hash) ?? [];
    if (!Object.hasOwn(TABLES, tab ?? "")) return { tab: first, key: "" };
    try {
      return { tab, key: decodeURIComponent(rest) };
    } catch { // no escape sequence of any text
      return { tab, key: "" };
    }
  };

  const openTab = () => document.querySelector("#studio-tabs [role=tab][aria-selected=true]")?.dataset.tabId;
  const rows = (tab) => TABLES[tab] ? [...document.querySelectorAll(`#${TABLES[tab]} [data-pick]`)] : [];
  const pickedIn = (tab) =>
    TABLES[tab] ? document.querySelector(`#${TABLES[tab]} .picked [data-pick]`)?.dataset.pick ?? "" : "";

  // A tab is a button of the bar, or of the menu of those that did not fit; the style sheet leaves out what is not for
  // the role, also inside a menu that is closed.
  const isForRole = (button) => getComputedStyle(button).display !== "none";
  const buttonOf = (tab) => {
    const shown = studio.byId(`${tab}-tab-button`);
    if (shown) return isForRole(shown) ? shown : null;
    const menu = document.querySelector("#studio-tabs .overflow-menu");
    if (!menu || !isForRole(menu)) return null;
    studio.nameFolded();
    return [...menu.querySelectorAll("[data-tab]")].find((one) => one.dataset.tab.toLowerCase() === tab && isForRole(one));
  };
  const press = (button) => {
    isOwnPress = true;
    button.click();
    isOwnPress = false;
  };

  // From the page to the address: another tab is a step that Back goes back, another row in it is none.
  const write = () => {
    const tab = openTab();
    if (!isBegun || wanted || !tab) return;
    const key = pickedIn(tab);
    const hash = key ? `#${tab}/${encodeURIComponent(key)}` : `#${tab}`;
    if (hash === (location.hash || `#${first}`)) return;
    const step = read().tab === tab ? "replaceState" : "pushState";
    history[step](null, "", `${location.pathname}${location.search}${hash}`);
  };

  // From the address to the page. A press shows only a moment later, so what is wanted is held until it is there.
  const go = () => {
    const { tab, key } = read();
    const button = buttonOf(tab);
    forget();
    wanted = button ? { tab, key, isAsked: !key } : { tab: first, key: "", isAsked: true };
    patience = setTimeout(() => { forget(); write(); }, PATIENCE_MS);
    if (openTab() !== wanted.tab) press(button ?? buttonOf(first));
    look();
  };
  const forget = () => {
    wanted = null;
    clearTimeout(patience);
  };
  const isThere = ({ tab, key }) => openTab() === tab && (!key || pickedIn(tab) === key);
  const look = () => {
    if (!isBegun) return begin();
    if (!wanted || openTab() === wanted.tab) show();
    if (wanted && isThere(wanted)) forget();
    const row = wanted && !wanted.isAsked && rows(wanted.tab).find((one) => one.dataset.pick === wanted.key);
    if (row) {
      wanted.isAsked = true;
      press(row);
    } else if (wanted && !wanted.isAsked && isOlderRun(wanted)) {
      wanted.isAsked = true;
      askFor(wanted.key);
    }
    return write();
  };
  const isOlderRun = ({ tab, key }) => tab === "train" && openTab() === tab && RUN_ID.test(key) && rows(tab).length > 0;
  // The table hears presses of whatever names a pick inside it.
  const askFor = (key) => {
    const button = document.createElement("button");
    button.hidden = true;
    button.dataset.pick = key;
    rows("train")[0].after(button);
    press(button);
    button.remove();
  };

  // Which tabs there are is known when it is known who is here. Whoever went to another tab by then stays there.
  const begin = () => {
    if (!hasRole() || !openTab()) return;
    isBegun = true;
    first = buttonOf("overview") ? "overview" : BUILT_OPEN;
    if (openTab() === BUILT_OPEN && read().tab !== BUILT_OPEN) go();
    else look();
  };
  // Until then the tab that was built open is out of sight, for another may be the first one.
  const show = () => { document.documentElement.dataset.opened = ""; };
  setTimeout(show, SHOW_MS);
  studio.openAddress = (isSignedIn) => {
    hasRole = () => !isSignedIn || Boolean(document.querySelector("[data-role]"));
    look();
  };

  addEventListener("popstate", () => { if (isBegun) go(); });
  // What a person asks for comes before what the address asked for.
  document.addEventListener("click", (event) => {
    if (isOwnPress || !(event.target instanceof Element)) return;
    if (event.target.closest("[role=tab], .overflow-dropdown button, [data-pick]")) forget();
  }, true);
  new MutationObserver(look).observe(document, {
    childList: true, subtree: true, attributes: true, attributeFilter: ["class", "aria-selected", "data-role"],
  });
})();
