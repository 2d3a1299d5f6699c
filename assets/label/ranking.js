// Ranking three to nine replies: a digit gives a reply the next place, Shift and the digit the same place as the one
// before. The cards stay where they are; their places are written on them. Nothing is ranked until a person did it.
(() => {
  const studio = window.studio;
  const ORDINALS = ["1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th"];

  const isRank = () => studio.stage()?.kind === "rank";
  const ranks = () => (studio.work().ranking ??= Array(studio.stage().texts.length).fill(null));
  const last = () => Math.max(0, ...ranks().map((rank) => rank ?? 0));

  const place = (index, isTied) => {
    if (!isRank() || index >= ranks().length) return;
    const given = ranks();
    if (given[index] !== null) given[index] = null;
    else given[index] = isTied && last() ? last() : last() + 1;
    closeGaps(given);
    studio.changed();
    show();
  };

  // Places are 1, 2, 3 … without a hole, whatever was taken back.
  const closeGaps = (given) => {
    const used = [...new Set(given.filter((rank) => rank !== null))].sort((a, b) => a - b);
    given.forEach((rank, index) => { if (rank !== null) given[index] = used.indexOf(rank) + 1; });
  };

  const tieRest = () => {
    const given = ranks();
    const next = last() + 1;
    given.forEach((rank, index) => { if (rank === null) given[index] = next; });
    studio.changed();
    show();
  };

  const takeBack = () => {
    const given = ranks(), worst = last();
    given.forEach((rank, index) => { if (rank === worst) given[index] = null; });
    studio.changed();
    show();
  };

  const submit = () => {
    if (!isRank()) return;
    const missing = ranks().flatMap((rank, index) => (rank === null ? [index + 1] : []));
    if (missing.length) studio.say(`Not ranked yet: ${missing.join(", ")}. Press their digits, or T to tie the rest.`);
    else studio.judge({ ranking: [...ranks()] });
  };

  const show = () => {
    if (!isRank()) return;
    const given = ranks();
    document.querySelectorAll("#pair .reply-card").forEach((card, index) => {
      const badge = card.querySelector(".place");
      badge.textContent = given[index] === null ? "" : ORDINALS[given[index] - 1];
      card.classList.toggle("placed", given[index] !== null);
    });
    const groups = [...new Set(given.filter(Boolean))].sort((a, b) => a - b)
      .map((rank) => given.flatMap((one, index) => (one === rank ? [index + 1] : [])).join(" = "));
    studio.byId("rank-order").textContent = groups.length ? groups.join(" > ") : "Press the digit of the best reply";
    studio.byId("rank-submit").classList.toggle("ready", given.every(Boolean));
  };

  studio.ranking = { isRank, place, takeBack, show };
  Object.assign(studio.acts, { "rank-submit": submit, "rank-rest": tieRest, "rank-back": takeBack });

  document.addEventListener("click", (event) => {
    // All of a reply's heading gives it its place: the number alone is small for a thumb.
    const heading = event.target instanceof Element && event.target.closest("#pair .reply-heading");
    const button = heading && heading.querySelector(".rank-pick");
    if (!button) return;
    place(Number(button.dataset.index), event.shiftKey);
    if (event.detail) button.blur(); // after a click of the mouse, Enter submits and does not take the place back
  });
})();
