// Draws a chat: what was asked, the replies beside each other, and what can be done with them. Text is only ever set as
// text; the markup of a finished reply comes from the studio, which draws it from an allow-list.
(() => {
  const { playground } = window.studio;
  const VERDICTS = [["left", "Left is better"], ["tie", "Tie"], ["right", "Right is better"], ["both_bad", "Both bad"]];

  const make = (tag, properties = {}, ...children) => {
    const { data = {}, ...rest } = properties;
    const made = Object.assign(document.createElement(tag), rest);
    Object.assign(made.dataset, data);
    made.append(...children.filter((child) => child !== null));
    return made;
  };
  const button = (text, act, data = {}, className = "button button-plain") =>
    make("button", { type: "button", textContent: text, className, data: { chat: act, ...data } });

  const headOf = (chat, side) =>
    chat[side] ?? (chat.sides.length === 1 ? "Policy" : side === "left" ? "Left" : "Right");

  const metaOf = (reply) => {
    if (reply.edited) return "edited by you";
    const parts = [`${reply.tokens} tokens`];
    if (reply.seconds !== undefined) parts.push(`${reply.seconds.toFixed(1)} s`);
    if (reply.finish_reason === "length") parts.push(reply.stopped ? "stopped" : "cut at the longest reply");
    return [...parts, `seed ${reply.seed}`].join(" · ");
  };

  const bodyOf = (turn, side, pending) => {
    const body = make("div", { className: "chat-reply-body" });
    const reply = turn[side];
    if (pending?.error) body.append(make("p", { className: "chat-error", textContent: pending.error }));
    else if (pending) {
      body.append(make("div", { className: "model-text chat-writing", dir: "auto", textContent: pending.text || pending.note }));
      body.setAttribute("aria-busy", "true");
    } else if (reply) body.innerHTML = reply.html;
    else body.append(make("p", { className: "quiet", textContent: "No reply yet." }));
    return body;
  };

  const replyOf = (chat, index, side, pending) => {
    const turn = chat.turns[index];
    const isLast = index === chat.turns.length - 1;
    const isWriting = pending && !pending.error;
    const acts = make("div", { className: "chat-acts" });
    if (!isWriting) {
      if (turn[side]) acts.append(button("Edit", "edit", { turn: index, side }));
      if (isLast) acts.append(button(turn[side] ? "Another" : "Ask again", "again", { turn: index, side }));
    }
    const isKept = chat.sides.length === 2 && turn.verdict && turn.verdict !== "both_bad" && turn.kept === side;
    const head = make("h4", {}, headOf(chat, side));
    if (isKept) head.append(make("span", { className: "badge badge-good", textContent: "goes on" }));
    return make(
      "article", { className: `chat-reply chat-${side}`, data: { side, turn: index } },
      head, bodyOf(turn, side, pending),
      turn[side] && !isWriting ? make("p", { className: "quiet chat-meta", textContent: metaOf(turn[side]) }) : null,
      acts,
    );
  };

  const verdictsOf = (chat, index) => {
    const turn = chat.turns[index];
    const bar = make("div", { className: "chat-verdicts", role: "group", ariaLabel: "Which reply is better?" });
    if (chat.sides.length === 2 && turn.left && turn.right) {
      for (const [verdict, words] of VERDICTS) {
        const one = button(words, "prefer", { turn: index, verdict });
        one.setAttribute("aria-pressed", String(turn.verdict === verdict));
        bar.append(one);
      }
      if (chat.hidden) bar.append(button("Reveal the names", "reveal"));
    }
    if (turn.left || turn.right) bar.append(button("Send to the annotators", "annotators", { turn: index }));
    return bar;
  };

  // ``pending`` maps the sides of the last turn that are being written to {text, note, error}.
  playground.draw = (place, chat, pending) => {
    const last = chat.turns.length - 1;
    place.replaceChildren(
      ...chat.turns.map((turn, index) => {
        const under = (side) => (index === last ? pending[side] : undefined);
        const isWriting = chat.sides.some((side) => under(side) && !under(side).error);
        return make(
          "section", { className: "chat-turn", ariaLabel: `Message ${index + 1}` },
          make("div", { className: "chat-user model-text", dir: "auto", textContent: turn.user }),
          make("div", { className: `chat-replies chat-of-${chat.sides.length}` },
            ...chat.sides.map((side) => replyOf(chat, index, side, under(side)))),
          isWriting ? null : verdictsOf(chat, index),
        );
      }),
    );
  };

  // Called for each piece of a reply: only its text changes.
  playground.write = (place, side, { text, note }) => {
    const writing = place.querySelector(`.chat-turn:last-child [data-side="${side}"] .chat-writing`);
    if (writing) writing.textContent = text || note;
  };

  playground.edit = (place, turn, side, text) => {
    const body = place.querySelectorAll(".chat-turn")[turn].querySelector(`[data-side="${side}"] .chat-reply-body`);
    const field = make("textarea", { className: "chat-edit", value: text, rows: Math.min(14, text.split("\n").length + 4),
      ariaLabel: "What the reply should say" });
    const acts = make("div", { className: "chat-acts" },
      button("Save as a demonstration", "edit-save", { turn, side }, "button button-primary"), button("Leave it", "edit-leave"));
    body.replaceChildren(field, acts);
    field.focus();
    return field;
  };

  playground.row = (chat, isPicked) => {
    const names = chat.policies.length ? chat.policies.join(" and ") : "two policies, blind";
    const pick = make("button", { type: "button", className: "pick", data: { pick: chat.id, chat: "open" } },
      make("span", { textContent: chat.title || "Without a message" }), make("small", { className: "quiet", textContent: names }));
    const remove = button("×", "archive", { key: chat.id }, "chat-remove");
    remove.setAttribute("aria-label", `Remove ${chat.title || "this chat"} from the list`);
    return make("li", { className: isPicked ? "picked" : "" }, pick, remove);
  };

  playground.empty = () =>
    make("div", { className: "chat-empty" },
      make("h3", { textContent: "Talk with a policy" }),
      make("p", { textContent: "Choose a policy and write a message. With a second policy, both reply side by side: say which reply is "
        + "better, and the chat goes on with it. Edit a reply to show what it should have said." }),
      make("p", { className: "quiet", textContent: "What you prefer here is kept apart: a dataset takes it only if asked to." }),
      make("div", { className: "chat-verdicts" },
        ...["Explain photosynthesis to a child.", "Write a short thank-you note.", "Give me three tips for better sleep."].map(
          (words) => button(words, "example", { text: words }))));
})();
