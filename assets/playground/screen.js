// The Playground: which chat is on the screen, what is being written, and what is asked of the studio.
(() => {
  const studio = window.studio;
  const { playground } = studio;
  const { ask, lines, draw } = playground;
  const byId = (id) => document.getElementById(id);
  const SEARCH_MS = 250; // after the last key
  const STAY_MS = 1200; // after which a person means to stay
  const VERDICTS = { left: "the left reply is better", right: "the right reply is better", tie: "a tie", both_bad: "both are bad" };
  const NUMBERS = ["temperature", "top_p", "top_k", "max_new_tokens"];

  let chat = null;
  let pending = {}; // side → {text, note, error} of what is being written
  let sent = ""; // the sampling that the chat has
  let search = 0;
  let drawn = ""; // the chat and its number of turns as last drawn: a new turn comes into sight

  const say = (words, undo) => {
    byId("chat-note").replaceChildren(words);
    if (!undo) return;
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Undo", onclick: undo });
    byId("chat-note").append(" ", button);
  };
  const attempt = async (work) => {
    try {
      return await work();
    } catch (error) {
      say(error.message);
      return undefined;
    }
  };

  const samplingOf = () => Object.fromEntries(NUMBERS.map((name) => [name, byId(`chat-${name}`).valueAsNumber]));
  const seedOf = () => (byId("chat-seed").value === "" ? undefined : byId("chat-seed").valueAsNumber);
  const isWriting = () => Object.values(pending).some((one) => !one.error);

  const show = () => {
    const place = byId("chat-turns");
    chat?.turns.length ? draw(place, chat, pending) : place.replaceChildren(playground.empty());
    for (const id of ["chat-left", "chat-right", "chat-system"]) byId(id).disabled = Boolean(chat);
    byId("chat-blind").disabled = Boolean(chat) || !byId("chat-right").value;
    byId("chat-send").hidden = isWriting();
    document.querySelector("[data-chat=stop]").hidden = !isWriting();
    if (drawn === turnsOf(chat)) return; // what is read stays where it is
    drawn = turnsOf(chat);
    place.scrollTop += (place.lastElementChild?.getBoundingClientRect().top ?? 0) - place.getBoundingClientRect().top;
  };
  const turnsOf = (one) => `${one?.id} ${one?.turns.length}`;

  const showList = async () => {
    const query = new URLSearchParams({ search: byId("chat-search").value.trim() });
    const found = await attempt(() => ask(`chats?${query}`));
    if (!found) return;
    const rows = found.chats.map((one) => playground.row(one, one.id === chat?.id));
    const none = Object.assign(document.createElement("li"), {
      className: "quiet", textContent: byId("chat-search").value.trim() ? "No chat holds these words." : "No chats yet.",
    });
    byId("chat-list").replaceChildren(...(rows.length ? rows : [none]));
  };

  const showPolicies = async () => {
    const found = await attempt(() => ask("policies"));
    if (!found) return;
    const fill = (select, first, chosen) => {
      const before = select.value || chosen;
      const options = found.policies.map((one) => new Option(one.champion ? `${one.name} (champion)` : one.name, one.name));
      select.replaceChildren(...first, ...options);
      if ([...select.options].some((one) => one.value === before)) select.value = before;
    };
    const champion = found.policies.find((one) => one.champion)?.name ?? "";
    fill(byId("chat-left"), [], champion);
    fill(byId("chat-right"), [new Option("nobody", "")], "");
  };

  const preload = () => {
    const policies = [byId("chat-left").value, byId("chat-right").value].filter(Boolean);
    if (policies.length) attempt(() => ask("chats/preload", { policies: [...new Set(policies)] }));
  };

  const writeReply = async (side, seed) => {
    const turn = chat.turns.length - 1;
    const { id } = chat;
    pending[side] = { text: "", note: "Waiting…" };
    const isShown = () => chat?.id === id && chat.turns.length - 1 === turn;
    const hear = (event) => {
      const one = pending[side];
      if (event.text !== undefined) one.text = event.text || "Thinking…";
      else if (event.loading) one.note = "Loading the policy…";
      else if (event.error) one.error = event.error;
      else if (event.reply) {
        const { seconds, stopped, reply } = event;
        if (isShown()) Object.assign(chat.turns[turn], { [side]: { ...reply, seconds, stopped }, verdict: null, kept: "left" });
        delete pending[side];
      }
      if (isShown() && pending[side] && !pending[side].error) playground.write(byId("chat-turns"), side, one);
    };
    try {
      await lines(`chats/${id}/replies`, { turn, side, seed }, hear);
      if (pending[side] && !pending[side].error) pending[side].error = "The reply broke off. Ask for it again.";
    } catch (error) {
      pending[side] = { error: error.message };
    }
    if (!isShown()) return;
    show();
    if (!isWriting()) say(Object.keys(pending).length ? "A reply is missing." : chat.sides.length > 1 ? "Both replies are there." : "The reply is there.");
  };

  const writeReplies = (sides) => {
    say("");
    const seed = seedOf();
    const all = sides.map((side) => writeReply(side, seed));
    show();
    return Promise.all(all).then(showList);
  };

  const start = async () => {
    const sampling = samplingOf();
    chat = await ask("chats", {
      left: byId("chat-left").value, right: byId("chat-right").value || null, blind: byId("chat-blind").checked,
      system: byId("chat-system").value, sampling,
    });
    sent = JSON.stringify(sampling);
  };
  const tellSampling = async () => {
    const sampling = samplingOf();
    if (sent === JSON.stringify(sampling)) return;
    await ask(`chats/${chat.id}/sampling`, { sampling });
    sent = JSON.stringify(sampling);
  };

  const send = async () => {
    const field = byId("chat-message");
    const text = field.value;
    if (!text.trim() || isWriting() || !byId("chat-setup").reportValidity()) return;
    await attempt(async () => {
      if (!chat) await start();
      await tellSampling();
      const answer = await ask(`chats/${chat.id}/messages`, { text });
      chat = { ...answer, turns: answer.turns.map((turn, at) => withTimes(turn, chat.turns[at])) };
      field.value = "";
      pending = {};
      await writeReplies(chat.sides);
    });
    show();
  };
  // The studio sends the time that a reply took once and does not save it.
  const withTimes = (turn, before) => {
    for (const side of ["left", "right"]) {
      if (turn[side] && before?.[side]?.id === turn[side].id) turn[side] = { ...before[side], ...turn[side] };
    }
    return turn;
  };
  const change = async (path, body = {}) => {
    const answer = await attempt(() => ask(`chats/${chat.id}/${path}`, body));
    if (!answer) return false;
    chat = { ...answer, turns: answer.turns.map((turn, at) => withTimes(turn, chat.turns[at])) };
    show();
    return true;
  };

  const fresh = () => {
    chat = null;
    pending = {};
    say("");
    show();
    byId("chat-message").focus();
    showList();
  };
  const open = async (id) => {
    const found = await attempt(() => ask(`chats/${id}`));
    if (!found) return;
    [chat, pending] = [found, {}];
    sent = JSON.stringify(Object.fromEntries(NUMBERS.map((name) => [name, found.sampling[name]])));
    for (const name of NUMBERS) byId(`chat-${name}`).value = found.sampling[name];
    byId("chat-system").value = found.system;
    byId("chat-blind").checked = found.blind;
    if (!found.hidden) [byId("chat-left").value, byId("chat-right").value] = [found.left, found.right ?? ""];
    say("");
    show();
    showList();
  };
  const archive = async (id) => {
    if (!(await attempt(() => ask(`chats/${id}/archive`, {})))) return;
    if (chat?.id === id) fresh();
    await showList();
    say("The chat is off the list.", () => attempt(async () => { await ask(`chats/${id}/restore`, {}); await open(id); }));
  };

  const ACTS = {
    new: fresh,
    open: ({ pick }) => open(pick),
    archive: ({ key }) => archive(key),
    example: ({ text }) => { byId("chat-message").value = text; send(); },
    stop: () => attempt(() => ask(`chats/${chat.id}/stop`, {})),
    again: ({ side }) => attempt(async () => { await tellSampling(); await writeReplies([side]); }),
    prefer: async ({ turn, verdict }) => {
      if (!(await change("preference", { turn: Number(turn), verdict }))) return;
      await showList();
      say(`Saved: ${VERDICTS[verdict]}.`);
    },
    reveal: () => change("reveal"),
    annotators: ({ turn }) => attempt(async () => {
      const { matchup_id: pair } = await ask(`chats/${chat.id}/annotators`, { turn: Number(turn) });
      say(pair ? "The pair comes next on the Label tab." : "The prompt is among the work prompts; the next fill draws replies for it.");
    }),
    edit: ({ turn, side }) => playground.edit(byId("chat-turns"), Number(turn), side, chat.turns[turn][side].text),
    "edit-leave": show,
    "edit-save": async ({ turn, side }, button) => {
      const text = button.closest(".chat-reply-body").querySelector("textarea").value;
      if (await change("edit", { turn: Number(turn), side, text })) say("Kept as a demonstration, preferred to the reply.");
    },
  };

  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element && event.target.closest("#playground [data-chat]");
    if (button) ACTS[button.dataset.chat](button.dataset, button);
  });
  document.addEventListener("submit", (event) => {
    if (!event.target.closest?.("#playground")) return;
    event.preventDefault();
    send();
  });
  document.addEventListener("keydown", (event) => {
    const isComposer = event.target.id === "chat-message";
    if (!isComposer || event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  document.addEventListener("input", (event) => {
    if (event.target.id !== "chat-search") return;
    clearTimeout(search);
    search = setTimeout(showList, SEARCH_MS);
  });
  document.addEventListener("change", (event) => {
    if (!["chat-left", "chat-right"].includes(event.target.id)) return;
    byId("chat-blind").disabled = !byId("chat-right").value;
    byId("chat-blind").checked &&= Boolean(byId("chat-right").value);
    preload();
  });

  playground.open = async () => {
    await showPolicies();
    // Who only passes by, on the way to another tab, needs no policy in memory.
    setTimeout(() => { if (!chat && byId("chat-message").checkVisibility()) preload(); }, STAY_MS);
    show();
    showList();
  };
})();
