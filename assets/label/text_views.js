// Ways of reading: as formatted or raw, what differs, and marks on the words of a reply.
//
// Marks are kept as characters of the raw text. They are drawn as highlights over it, so the text itself is never
// taken apart; while marking, the raw text is what is shown.
(() => {
  const studio = window.studio;
  const cards = () => [...document.querySelectorAll("#pair .reply-card")];
  const rawOf = (index) => cards()[index]?.querySelector(".model-text");
  const views = { diff: false, raw: false, marking: false };

  const show = () => {
    const pair = studio.byId("pair");
    pair.classList.toggle("view-raw", views.raw || views.marking);
    pair.classList.toggle("view-diff", views.diff);
    pair.classList.toggle("view-marking", views.marking);
    for (const name of ["diff", "raw", "mark"]) {
      const on = name === "mark" ? views.marking : views[name];
      document.querySelector(`.tools [data-action=${name}]`)?.setAttribute("aria-pressed", String(on));
    }
    if (views.diff) drawDiff();
    drawMarks();
  };

  // Differences ------------------------------------------------------------------------------------------

  const words = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];

  // Which words of two texts are common, by their longest common subsequence; too long a pair is cut at its ends first.
  const common = (a, b) => {
    const inA = new Uint8Array(a.length), inB = new Uint8Array(b.length);
    let start = 0, endA = a.length, endB = b.length;
    while (start < endA && start < endB && a[start] === b[start]) inA[start] = inB[start++] = 1;
    while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) inA[--endA] = inB[--endB] = 1;
    const rows = endA - start, columns = endB - start;
    if (rows * columns > 16e6) return [inA, inB];
    const best = Array.from({ length: rows + 1 }, () => new Uint16Array(columns + 1));
    for (let i = rows - 1; i >= 0; i--) {
      for (let j = columns - 1; j >= 0; j--) {
        best[i][j] = a[start + i] === b[start + j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
      }
    }
    for (let i = 0, j = 0; i < rows && j < columns;) {
      if (a[start + i] === b[start + j]) inA[start + i++] = inB[start + j++] = 1;
      else if (best[i + 1][j] >= best[i][j + 1]) i++;
      else j++;
    }
    return [inA, inB];
  };

  const drawn = (place, list, isCommon) => {
    place.textContent = "";
    let run = "", wasCommon = true;
    const flush = () => {
      if (!run) return;
      const piece = wasCommon ? document.createTextNode(run) : document.createElement("mark");
      if (!wasCommon) piece.textContent = run;
      place.append(piece);
      run = "";
    };
    list.forEach((word, at) => {
      // White space between two words that differ belongs to the difference.
      const same = /^\s+$/.test(word) && !wasCommon && at + 1 < list.length && !isCommon[at + 1] ? false : !!isCommon[at];
      if (same !== wasCommon) { flush(); wasCommon = same; }
      run += word;
    });
    flush();
  };
  studio.drawDiff = (place, text, other) => {
    const [a, b] = [words(text), words(other)];
    drawn(place, a, common(a, b)[0]);
  };

  // Each reply is held against the other one; of several, against the best so far, or else the first.
  const drawDiff = () => {
    const all = cards(), ranking = studio.work().ranking ?? [];
    const best = Math.max(0, ranking.indexOf(1));
    all.forEach((card, index) => {
      const against = all.length === 2 ? 1 - index : index === best ? (best === 0 ? 1 : 0) : best;
      const text = rawOf(index).textContent, other = rawOf(against).textContent;
      const place = card.querySelector(".diff-view");
      studio.drawDiff(place, text, other);
      const said = place.querySelector("mark") ? `Marked words are not in reply ${against + 1}` : `Same words as reply ${against + 1}`;
      card.querySelector(".diff-note").textContent = said;
    });
  };

  // Marks ------------------------------------------------------------------------------------------------

  const HIDDEN = /[\u202A-\u202E\u2066-\u2069]/; // left out of the page, yet part of the raw text
  const spans = () => (studio.work().spans ??= []);
  let cursor = null; // {index, from, to}: words of one reply, as offsets of the shown text

  // Characters of the raw text (code points, as Python counts) before an offset of the shown text (UTF-16).
  const rawOffset = (raw, shown) => {
    let seen = 0, count = 0;
    for (let i = 0; i < raw.length && seen < shown;) {
      const letter = String.fromCodePoint(raw.codePointAt(i));
      const isHidden = HIDDEN.test(letter) || (letter === "\r" && raw[i + 1] === "\n");
      i += letter.length;
      count += 1;
      if (!isHidden) seen += letter.length;
    }
    return count;
  };
  const shownOffset = (raw, wanted) => {
    let seen = 0, count = 0;
    for (let i = 0; i < raw.length && count < wanted; count++) {
      const letter = String.fromCodePoint(raw.codePointAt(i));
      if (!(HIDDEN.test(letter) || (letter === "\r" && raw[i + 1] === "\n"))) seen += letter.length;
      i += letter.length;
    }
    return seen;
  };

  const rangeOf = (index, from, to) => {
    const node = rawOf(index)?.firstChild;
    if (!node) return null;
    const range = new Range();
    range.setStart(node, Math.min(from, node.length));
    range.setEnd(node, Math.min(to, node.length));
    return range;
  };
  const drawMarks = () => {
    if (!window.CSS?.highlights) return;
    const stage = studio.stage();
    for (const mark of ["good", "bad"]) {
      const ranges = (stage ? spans() : []).filter((span) => span.mark === mark).map((span) => {
        const raw = stage.texts[span.index];
        return rangeOf(span.index, shownOffset(raw, span.start), shownOffset(raw, span.end));
      });
      CSS.highlights.set(`mark-${mark}`, new Highlight(...ranges.filter(Boolean)));
    }
    const at = cursor && rangeOf(cursor.index, cursor.from, cursor.to);
    CSS.highlights.set("mark-cursor", at ? new Highlight(at) : new Highlight());
    studio.showMarks?.();
  };

  const selected = () => {
    const chosen = getSelection();
    if (!chosen.rangeCount || chosen.isCollapsed) return null;
    const range = chosen.getRangeAt(0);
    const index = cards().findIndex((card) => card.querySelector(".model-text").contains(range.startContainer));
    const node = rawOf(index)?.firstChild;
    if (!node || range.startContainer !== node || !range.intersectsNode(node)) return null;
    return { index, from: range.startOffset, to: range.endContainer === node ? range.endOffset : node.length };
  };

  const mark = (kind) => {
    const place = selected() ?? (views.marking ? cursor : null);
    if (!place || place.from === place.to) return studio.say("Choose words first: M, then the arrow keys; or select them.");
    const raw = studio.stage().texts[place.index];
    const [start, end] = [rawOffset(raw, place.from), rawOffset(raw, place.to)];
    spans().push({ index: place.index, start, end, mark: kind });
    getSelection().removeAllRanges();
    studio.changed();
    if (!views.marking) startMarking(place.index);
    show();
    return undefined;
  };
  const unmark = (at) => {
    spans().splice(at, 1);
    studio.changed();
    show();
  };

  const wordsAt = (index) => {
    const found = [];
    for (const match of rawOf(index).textContent.matchAll(/\S+/g)) found.push([match.index, match.index + match[0].length]);
    return found;
  };
  const moveCursor = (step, isExtending) => {
    const all = wordsAt(cursor.index);
    if (!all.length) return;
    const first = all.findIndex(([from]) => from === cursor.from), end = all.findIndex(([, to]) => to === cursor.to);
    const at = Math.max(0, Math.min(all.length - 1, (isExtending || step > 0 ? end : first) + step));
    if (isExtending && all[at][1] <= cursor.from) return;
    cursor = { index: cursor.index, from: isExtending ? cursor.from : all[at][0], to: all[at][1] };
    rangeOf(cursor.index, cursor.from, cursor.to)?.startContainer.parentElement.scrollIntoView({ block: "nearest" });
    drawMarks();
  };
  const startMarking = (index) => {
    if (!studio.stage()) return;
    views.marking = true;
    const [first] = wordsAt(index);
    cursor = { index, from: first?.[0] ?? 0, to: first?.[1] ?? 0 };
    studio.openPanel("marks", null);
    show();
    cards()[index].scrollIntoView({ block: "start" });
  };
  const stopMarking = () => {
    views.marking = false;
    cursor = null;
    show();
  };

  // While marking, these keys mark; all others keep their meaning.
  const markingKey = (key) => {
    const digit = Number(key);
    if (digit) { if (digit <= cards().length) startMarking(digit - 1); } // no digit judges while marking
    else if (key === "ArrowRight" || key === "Shift+ArrowRight") moveCursor(1, key.startsWith("Shift"));
    else if (key === "ArrowLeft" || key === "Shift+ArrowLeft") moveCursor(-1, key.startsWith("Shift"));
    else if (key === "+") mark("good");
    else if (key === "-") mark("bad");
    else if (key === "Backspace" && spans().length) unmark(spans().length - 1);
    else return false;
    return true;
  };

  studio.reading = {
    views, mark, unmark, markingKey, stopMarking,
    paint: () => { views.marking = false; cursor = null; show(); showTabs(); },
    quote: (span) => [...studio.stage().texts[span.index]].slice(span.start, span.end).join(""),
  };
  Object.assign(studio.acts, {
    diff: () => { views.diff = !views.diff; show(); },
    raw: () => { views.raw = !views.raw; show(); },
    mark: () => (views.marking ? studio.closePanel() : startMarking(0)),
  });

  // Swiping ----------------------------------------------------------------------------------------------

  // On a phone both replies stand in one line, of which one reply is in sight; the browser moves and snaps it. Here the
  // headings above are kept true, and a press on one goes to its reply.
  const track = () => document.querySelector("#pair [data-kind=pair] > .replies");
  const reach = (line) => line.scrollWidth - line.clientWidth;
  const inSight = (line) => (line.scrollLeft > reach(line) / 2 ? 1 : 0);
  const showTabs = () => {
    const line = track();
    if (!line) return;
    reach(line) > 1 ? line.setAttribute("tabindex", "0") : line.removeAttribute("tabindex");
    document.querySelectorAll("#pair .reply-tab").forEach((tab, index) => {
      const pressed = String(inSight(line) === index);
      if (tab.getAttribute("aria-pressed") !== pressed) tab.setAttribute("aria-pressed", pressed);
    });
  };
  document.addEventListener("scroll", (event) => { if (event.target === track()) showTabs(); }, { capture: true, passive: true });
  addEventListener("resize", showTabs);
  document.addEventListener("click", (event) => {
    const tab = event.target instanceof Element && event.target.closest("#pair .reply-tab"), line = track();
    if (!tab || !line) return;
    line.scrollTo({ left: Number(tab.dataset.reply) * reach(line) });
    if (event.detail) tab.blur(); // the next press is a key of the screen again
  });

  // Unfolded by a click, the reasoning does not keep the focus: the next press is a key of the screen again.
  document.addEventListener("click", (event) => {
    if (event.detail > 0 && event.target instanceof Element) event.target.closest("#pair .reasoning > summary")?.blur();
  });
})();
