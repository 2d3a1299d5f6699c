// The panels above the verdict buttons: an edit, a note, ratings, marks, a flag, a reason to skip; and what comes
// when it is asked for: guidelines and one's own figures. A panel takes no focus that Escape does not give back.
(() => {
  const studio = window.studio;
  const { byId } = studio;
  const PANELS = ["edit", "note", "criteria", "marks", "flag", "skip"];
  let open = null;
  let cameFrom = null;

  const set = (name, value) => {
    if (value === null || value === "") delete studio.work()[name];
    else studio.work()[name] = value;
    showSet();
    studio.changed();
  };

  studio.openPanel = (name, focus) => {
    if (!studio.stage()) return;
    if (open !== name) studio.closePanel();
    if (!open) cameFrom = document.activeElement;
    open = name;
    byId(`panel-${name}`).hidden = false;
    pressed();
    if (focus) byId(focus)?.focus({ preventScroll: true });
  };
  studio.closePanel = () => {
    if (!open) return false;
    const panel = byId(`panel-${open}`), hadFocus = panel.contains(document.activeElement);
    panel.hidden = true;
    if (open === "marks") studio.reading.stopMarking();
    open = null;
    pressed();
    if (!hadFocus) return true;
    document.activeElement.blur();
    if (cameFrom?.isConnected) cameFrom.focus({ preventScroll: true });
    return true;
  };
  studio.panel = () => open;
  const pressed = () => {
    for (const name of PANELS) {
      document.querySelector(`[data-action=${name === "marks" ? "mark" : name === "skip" ? "skip-why" : name}]`)
        ?.setAttribute("aria-expanded", String(open === name));
    }
  };
  const toggle = (name, focus) => () => (open === name ? studio.closePanel() : studio.openPanel(name, focus));

  // Edit -------------------------------------------------------------------------------------------------

  const edited = () => studio.work().edited ?? null;
  const beginEdit = (index) => {
    const stage = studio.stage();
    if (!stage || index >= stage.texts.length) return;
    if (edited()?.index !== index) studio.work().edited = null;
    studio.openPanel("edit", null);
    const field = byId("edit-text");
    field.dataset.index = index;
    field.value = edited()?.text ?? stage.texts[index];
    showEdit();
    field.focus({ preventScroll: true });
  };
  const showEdit = () => {
    const stage = studio.stage(), field = byId("edit-text"), index = Number(field.dataset.index ?? -1);
    const picks = byId("edit-picks");
    picks.textContent = "";
    (stage?.texts ?? []).forEach((_, at) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: `Reply ${at + 1}` });
      button.setAttribute("aria-pressed", String(at === index));
      button.addEventListener("click", () => beginEdit(at));
      picks.append(button);
    });
    const begun = index >= 0;
    byId("edit-fields").hidden = !begun;
    byId("edit-label").textContent = begun ? `Your better wording of reply ${index + 1}` : "";
    byId("edit-choose").hidden = stage?.kind !== "pair";
    if (begun && stage) studio.drawDiff(byId("edit-diff"), field.value, stage.texts[index]);
    document.querySelectorAll("#pair .reply-card").forEach((card, at) => {
      card.classList.toggle("edited", edited()?.index === at);
    });
  };
  const typedEdit = () => {
    const field = byId("edit-text"), index = Number(field.dataset.index), stage = studio.stage();
    if (!stage) return;
    const isNew = field.value.trim() && field.value !== stage.texts[index];
    set("edited", isNew ? { index, text: field.value } : null);
    showEdit();
  };
  const dropEdit = () => { set("edited", null); byId("edit-text").dataset.index = -1; showEdit(); studio.closePanel(); };
  const chooseEdited = () => {
    const index = edited()?.index;
    if (index === undefined) return studio.say("Change the words first; without an edit there is nothing to keep.");
    if (studio.stage().kind !== "pair") return studio.closePanel();
    studio.judge({ verdict: index === 0 ? "left" : "right" });
    return undefined;
  };

  // Ratings ----------------------------------------------------------------------------------------------

  const build = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const showCriteria = () => {
    const place = byId("criteria-table"), stage = studio.stage();
    if (!place || !stage) return;
    place.textContent = "";
    const given = studio.work().criteria ?? {};
    studio.guidelines().criteria.forEach((name, row) => {
      const group = build("div", { className: "criterion" }, build("div", { className: "criterion-name", textContent: name }));
      stage.texts.forEach((_, index) => {
        const set_ = build("fieldset", {}, build("legend", { textContent: `Reply ${index + 1}` }));
        set_.setAttribute("aria-label", `${name}, reply ${index + 1}`);
        for (let value = 1; value <= 5; value++) {
          const input = build("input", { type: "radio", name: `criterion-${row}-${index}`, value });
          input.checked = given[name]?.[index] === value;
          input.addEventListener("change", () => rate(name, index, value));
          set_.append(build("label", {}, input, build("span", { textContent: value })));
        }
        group.append(set_);
      });
      place.append(group);
    });
  };
  const rate = (name, index, value) => {
    const all = { ...studio.work().criteria };
    all[name] = [...(all[name] ?? Array(studio.stage().texts.length).fill(null))];
    all[name][index] = value;
    set("criteria", all);
  };

  // A digit rates where the focus stands and goes on to the next; elsewhere it begins at the first not yet rated.
  const rateByKey = (value) => {
    const groups = [...document.querySelectorAll("#criteria-table fieldset")];
    const here = document.activeElement?.closest("#criteria-table fieldset");
    const group = here ?? groups.find((one) => !one.querySelector(":checked")) ?? groups[0];
    const input = group?.querySelectorAll("input")[value - 1];
    if (!input) return;
    input.click();
    focusRating(groups[groups.indexOf(group) + 1] ?? group);
  };
  const focusRating = (group) => (group?.querySelector(":checked") ?? group?.querySelector("input"))
    ?.focus({ preventScroll: true });

  // Marks, flag ------------------------------------------------------------------------------------------

  studio.showMarks = () => {
    const list = byId("marks-list");
    if (!list) return;
    list.textContent = "";
    (studio.stage() ? studio.work().spans ?? [] : []).forEach((span, at) => {
      const reason = build("input", { type: "text", value: span.reason ?? "", placeholder: "reason", maxLength: 500 });
      reason.setAttribute("aria-label", `Reason for mark ${at + 1}`);
      reason.addEventListener("input", () => { span.reason = reason.value; studio.changed(); });
      const remove = build("button", { type: "button", textContent: "Remove" });
      remove.setAttribute("aria-label", `Remove mark ${at + 1}`);
      remove.addEventListener("click", () => studio.reading.unmark(at));
      const quote = build("q", { textContent: studio.reading.quote(span), dir: "auto" });
      const kind = build("span", { className: `mark-kind mark-kind-${span.mark}`, textContent: span.mark });
      list.append(build("li", {}, kind, `reply ${span.index + 1} `, quote, reason, remove));
    });
  };
  const flagged = (reason) => {
    set("flag", studio.work().flag === reason ? null : reason);
    const words = document.querySelector(`#panel-flag [data-reason="${reason}"] span`)?.textContent ?? reason;
    studio.say(studio.work().flag ? `Flagged: ${words}. It goes with your judgment.` : "The flag is taken off.", "good");
    showFlag();
    studio.closePanel();
  };
  const showFlag = () => {
    const reason = studio.stage() ? studio.work().flag : null;
    document.querySelectorAll("#panel-flag [data-reason]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.reason === reason));
    });
    document.querySelector(".tools [data-action=flag]")?.classList.toggle("is-set", Boolean(reason));
  };

  // In a panel of reasons a digit is a reason.
  studio.panelKey = (key) => {
    if (open === "edit" && byId("edit-fields").hidden && Number(key)) beginEdit(Number(key) - 1);
    else if ((open === "flag" || open === "skip") && Number(key)) {
      // A digit that names no reason does nothing: it must not judge the pair behind the panel.
      document.querySelectorAll(`#panel-${open} [data-reason]`)[Number(key) - 1]?.click();
    } else if (open === "criteria" && /^(Shift\+)?\d$/.test(key)) rateByKey(Number(key)); // NaN rates nothing
    else return false;
    return true;
  };

  // A note is in sight where the project asks for one, and where there is one: it goes out with the vote.
  const showNote = () => {
    const said = Boolean(studio.stage() && studio.work().rationale);
    byId("panel-note").hidden = !(open === "note" || said || (studio.stage() && studio.guidelines().asks_rationale));
    showSet();
  };
  const showSet = () => {
    const given = studio.stage() ? studio.work() : {};
    for (const [action, value] of [["note", given.rationale], ["criteria", given.criteria]]) {
      document.querySelector(`.tools [data-action=${action}]`)?.classList.toggle("is-set", Boolean(value));
    }
  };

  // Guidelines and figures -------------------------------------------------------------------------------

  const SEEN = "rlhf-studio-guidelines"; // the version this browser has shown last
  const BESIDE = "rlhf-studio-guidelines-open"; // whether they stand beside the task of a wide window
  const drawer = () => byId("guidelines-details");
  const isWide = () => matchMedia("(min-width: 1500px)").matches; // there they are open to begin with, and stay so

  // Returns whether they have changed since this browser showed them last: then they open by themselves, once.
  studio.showGuidelines = (given) => {
    byId("guidelines-body").innerHTML = given.html;
    byId("guidelines-version").textContent = given.version ? `version ${given.version}` : "";
    const seen = Number(studio.stored(SEEN) ?? -1);
    const isNews = seen >= 0 && given.version > seen;
    studio.stored(SEEN, String(given.version));
    byId("guidelines-news").hidden = !isNews;
    if (isNews) drawer().open = true;
    else if (!drawer().dataset.laid) drawer().open = isWide() && studio.stored(BESIDE) !== "no";
    drawer().dataset.laid = "yes";
    showNote();
    const tool = document.querySelector(".tools [data-action=criteria]");
    tool.hidden = !given.criteria.length;
    showCriteria();
    return isNews;
  };
  studio.closeDrawer = () => {
    if (!drawer()?.open || isWide()) return false;
    if (drawer().contains(document.activeElement)) document.activeElement.blur();
    drawer().open = false;
    return true;
  };
  studio.showFigures = (markup) => { byId("figures-body").innerHTML = markup ?? ""; };

  // The goal for the day ---------------------------------------------------------------------------------

  const FIRST_GOAL = 50, MOST_GOAL = 9999;
  const goalKey = () => `rlhf-studio-goal ${document.querySelector(".signed-in strong")?.textContent ?? ""}`.trim();
  const goal = () => Number(studio.stored(goalKey())) || FIRST_GOAL;
  let answered = 0; // in all, as the counter was last told
  let base = null; // {today, total}: what was answered on the day ``day``, when the studio was asked
  let day = "";

  studio.showGoal = (total) => {
    answered = total;
    const midnight = new Date();
    if (day !== midnight.toDateString()) {
      day = midnight.toDateString();
      midnight.setHours(0, 0, 0, 0);
      studio.send("today", { content: { since: midnight.toISOString() } });
    }
    writeGoal();
  };
  studio.showToday = (told) => {
    base = told;
    if (!told) day = ""; // asked again with the next answer
    writeGoal();
  };
  const writeGoal = () => {
    const button = byId("goal");
    if (!button || !base) return;
    const today = Math.max(0, base.today + answered - base.total);
    button.textContent = `${today >= goal() ? "✓ " : ""}${today} of ${goal()} today`;
    button.classList.toggle("is-reached", today >= goal());
    button.style.setProperty("--done", `${Math.min(100, 100 * today / goal())}%`);
  };
  const editGoal = (isEdited) => {
    byId("goal").hidden = isEdited;
    byId("goal-edit").hidden = !isEdited;
    if (isEdited) { byId("goal-edit").value = goal(); byId("goal-edit").select(); }
    else writeGoal();
  };
  const keepGoal = () => {
    const wanted = Math.round(Number(byId("goal-edit").value));
    if (wanted >= 1 && wanted <= MOST_GOAL) studio.stored(goalKey(), String(wanted));
    editGoal(false);
  };
  document.addEventListener("click", (event) => { if (event.target.id === "goal") editGoal(true); });
  document.addEventListener("focusout", (event) => { if (event.target.id === "goal-edit") keepGoal(); });
  document.addEventListener("keydown", (event) => {
    if (event.target.id !== "goal-edit" || !["Enter", "Escape"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation(); // neither is for the screen
    if (event.key === "Escape") event.target.value = "";
    event.target.blur();
  }, true);

  // Wiring -----------------------------------------------------------------------------------------------

  let shownKind = null; // of the task whose buttons were last put in order; none after a change of what is in sight
  addEventListener("resize", () => { shownKind = null; });
  studio.painted = (item) => {
    const note = byId("note-text");
    if (note) note.value = (item && studio.work().rationale) ?? "";
    if (open) studio.closePanel();
    studio.foldAll?.();
    showNote();
    byId("edit-text").dataset.index = edited()?.index ?? -1;
    byId("edit-text").value = edited()?.text ?? "";
    showEdit();
    showCriteria();
    showFlag();
    studio.reading.paint();
    studio.ranking.show();
    if (item && shownKind !== item.kind) studio.showKeys?.(); // which buttons are in sight has changed
    shownKind = item && studio.isShown() ? item.kind : null;
    if (item && studio.work().spans?.length) studio.openPanel("marks", null);
  };

  Object.assign(studio.acts, {
    edit: () => {
      if (open === "edit") return studio.closePanel();
      if (edited()) return beginEdit(edited().index);
      byId("edit-text").dataset.index = -1;
      studio.openPanel("edit", null);
      showEdit();
      byId("edit-picks").querySelector("button")?.focus({ preventScroll: true });
      return undefined;
    },
    note: () => (open === "note" && document.activeElement === byId("note-text")
      ? studio.closePanel() : studio.openPanel("note", "note-text")),
    criteria: () => {
      if (!studio.guidelines().criteria.length) return;
      toggle("criteria", null)();
      if (open === "criteria") focusRating(document.querySelector("#criteria-table fieldset"));
    },
    flag: toggle("flag", null),
    "skip-why": toggle("skip", null),
    guidelines: () => {
      drawer().open = !drawer().open;
      if (isWide()) studio.stored(BESIDE, drawer().open ? "yes" : "no");
      if (drawer().open) byId("guidelines-body").focus({ preventScroll: true });
      else document.activeElement?.blur?.();
    },
    figures: () => {
      if (!byId("figures-dialog").open) studio.send("figures");
      studio.dialog("figures-dialog");
    },
    "edit-drop": dropEdit,
    "edit-choose": chooseEdited,
    "mark-good": () => studio.reading.mark("good"),
    "mark-bad": () => studio.reading.mark("bad"),
  });

  document.addEventListener("input", (event) => {
    if (event.target.id === "edit-text") typedEdit();
    if (event.target.id === "note-text") set("rationale", event.target.value);
  });
  document.addEventListener("click", (event) => {
    const reason = event.target instanceof Element && event.target.closest("[data-reason]");
    if (reason?.closest("#panel-flag")) flagged(reason.dataset.reason);
    if (reason?.closest("#panel-skip")) studio.judge({ skip_reason: reason.dataset.reason });
    const close = event.target instanceof Element && event.target.closest(".panel-close");
    if (close && !studio.closePanel()) close.closest(".panel").hidden = true; // one that is in sight unasked
  });
  // A press on a mark button must not lose the words that are selected.
  document.addEventListener("mousedown", (event) => {
    if (event.target instanceof Element && event.target.closest("#panel-marks [data-action]")) event.preventDefault();
  });
  document.addEventListener("toggle", (event) => {
    if (event.target.id !== "guidelines-details") return;
    byId("guidelines-open").setAttribute("aria-expanded", String(event.target.open));
    if (!event.target.open) byId("guidelines-news").hidden = true;
  }, true);
  // A press on their heading is one on the button: what it did is remembered, and leaves no focus behind.
  document.addEventListener("click", (event) => {
    if (!(event.target instanceof Element) || !event.target.closest("#guidelines-details summary")) return;
    event.preventDefault();
    studio.acts.guidelines();
  });
})();
