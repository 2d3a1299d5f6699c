// What a press is called, whatever the keyboard's layout: digits by their place, letters by their sign, and a letter of
// another script by the sign that its key has on a Latin keyboard.
(() => {
  const studio = (window.studio = window.studio ?? {});
  // What a press with Shift, or without, writes on a Latin keyboard, for the keys that have an act of their own.
  const SIGNS = { Minus: ["-", "_"], Equal: ["=", "+"], Slash: ["/", "?"] };
  const ASSIGNABLE = /^(Shift\+)?(Space|Enter|Backspace|Delete|Insert|Home|End|Arrow(Left|Right|Up|Down)|\S)$/u;

  // AltGr is Ctrl and Alt on Windows and a modifier of its own elsewhere; either way the press writes a sign.
  studio.isModified = (event) =>
    event.ctrlKey || event.altKey || event.metaKey || Boolean(event.getModifierState?.("AltGraph"));

  const bySign = (event) => {
    const shift = event.shiftKey ? "Shift+" : "";
    const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code ?? "")?.[1];
    if (digit && (event.shiftKey || event.key === digit || event.code.startsWith("Digit"))) return shift + digit;
    if (event.key === " ") return `${shift}Space`; // it is written on the buttons
    if (event.key.length === 1) return /\p{L}/u.test(event.key) ? shift + event.key.toUpperCase() : event.key;
    return shift + event.key;
  };
  const byPlace = (event) => {
    if (/\p{Script=Latin}/u.test(event.key) && event.key.length === 1) return undefined; // its sign is what counts
    const letter = /^Key([A-Z])$/.exec(event.code ?? "")?.[1];
    if (letter) return `${event.shiftKey ? "Shift+" : ""}${letter}`;
    return SIGNS[event.code]?.[event.shiftKey ? 1 : 0];
  };

  // The name that is shown and kept, then what else the press may have meant.
  studio.keyName = bySign;
  studio.keyNames = (event) => {
    const sign = event.key.length === 1 && event.key !== " " && !/\p{L}/u.test(event.key) ? event.key : undefined;
    return [...new Set([bySign(event), sign, byPlace(event)])].filter(Boolean);
  };
  // Whether a key can be given to an act: the others belong to the browser, or take the focus along.
  studio.isAssignable = (key) => ASSIGNABLE.test(key);
})();
