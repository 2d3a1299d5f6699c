// What reviewers wrote to the annotator: a card over the page, newest first. It takes no room and no focus, so nothing
// moves under the reader's eyes; one key puts it away in this browser, and it stays readable under "Your progress".
(() => {
  const studio = window.studio;
  const { byId } = studio;
  const AWAY = "rlhf-studio-messages-away";
  let messages = []; // {id, html} as the studio gave them, newest first

  const away = () => new Set(JSON.parse(studio.stored(AWAY) ?? "[]"));
  const waiting = () => messages.filter((message) => !away().has(message.id));

  const show = () => {
    const card = byId("reviewer-message"), left = waiting();
    if (!card) return;
    card.hidden = !left.length;
    if (!left.length || card.dataset.shown === `${left[0].id} ${left.length}`) return;
    card.dataset.shown = `${left[0].id} ${left.length}`;
    byId("reviewer-message-head").textContent =
      left.length > 1 ? `A reviewer wrote to you, 1 of ${left.length}` : "A reviewer wrote to you";
    byId("reviewer-message-text").innerHTML = left[0].html;
  };
  studio.showMessages = (given) => {
    messages = given;
    show();
  };
  studio.acts["message-away"] = () => {
    const [first] = waiting();
    if (!first) return;
    const known = new Set(messages.map((message) => message.id));
    studio.stored(AWAY, JSON.stringify([...away(), first.id].filter((id) => known.has(id))));
    const card = byId("reviewer-message");
    if (card.contains(document.activeElement)) document.activeElement.blur();
    show();
  };
})();
