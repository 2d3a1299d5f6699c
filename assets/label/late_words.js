// Words whose pair went from the screen before they were saved: judged in another window, or gone back to the pool. The
// studio compares them with the saved judgment; what that lacks stands in a card until a person adds or drops it, over
// reloads as well.
(() => {
  const studio = window.studio;
  const { byId } = studio;
  const KEY = "rlhf-studio-late-words"; // a list of {lease, said, html}, oldest first
  const SENT = "rlhf-studio-undelivered-words"; // a list of {lease, said}
  const REMARKS = ["rationale", "edited", "spans", "criteria", "flag"];

  const waiting = () => JSON.parse(studio.stored(KEY) ?? "[]");
  const keep = (all) => {
    studio.stored(KEY, all.length ? JSON.stringify(all) : null);
    show();
  };
  const show = () => {
    const card = byId("late-words"), [first] = waiting();
    if (!card) return;
    if (first && card.dataset.lease !== first.lease) byId("late-words-text").innerHTML = first.html;
    card.dataset.lease = first?.lease ?? "";
    card.hidden = !first;
  };

  // Called when a pair goes from the screen and its judgment is not this window's.
  studio.rescue = (lease, content) => {
    const said = Object.fromEntries(REMARKS.filter((name) => content[name]).map((name) => [name, content[name]]));
    if (!Object.keys(said).length) return;
    undelivered([...undelivered().filter((one) => one.lease !== lease), { lease, said }]);
    studio.send("late", { lease, said });
  };
  // Words that the studio has not answered yet, kept in this browser; asked for again after a while, or a reload.
  const undelivered = (all) => JSON.parse((all ? studio.stored(SENT, JSON.stringify(all)) : studio.stored(SENT)) ?? "[]");
  studio.deliverLate = (lease) => undelivered()
    .filter((words) => !lease || words.lease === lease).forEach((words) => studio.send("late", words));
  studio.delivered = (answer) => {
    undelivered(undelivered().filter((one) => one.lease !== answer.lease));
    studio.lateWords(answer.late);
  };
  studio.lateWords = (late) => {
    if (late?.judged) keep([...waiting().filter((one) => one.lease !== late.lease), late]);
    else if (late && !byId("label-says").textContent) studio.say("This pair went back to the pool. What you typed is kept for when it comes back.");
  };
  studio.lateAdded = (answer) => {
    if (answer.refused) return studio.say(answer.refused, "bad");
    keep(waiting().filter((one) => one.lease !== answer.lease));
    return studio.say("Added to the saved judgment.", "good");
  };

  document.addEventListener("click", (event) => {
    const [first] = waiting();
    if (!first || !(event.target instanceof Element)) return;
    if (event.target.id === "late-words-add") studio.send("add", { lease: first.lease, said: first.said });
    else if (event.target.id === "late-words-drop") {
      keep(waiting().slice(1));
      studio.say("Left out. The saved judgment is as it was.");
    } else return;
    event.target.blur();
  });
  studio.showLate = show;
})();
