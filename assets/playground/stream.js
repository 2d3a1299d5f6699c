// Requests of the Playground to /api/chats. ``ask`` gives the answer as JSON; ``lines`` hands over the lines of a reply as
// they come. Both throw an Error with the studio's own words when a request is refused, or when it is not reached.
(() => {
  const studio = window.studio;
  const AWAY = "Can't reach the studio. Nothing is lost; try again in a moment.";

  const request = async (path, method, body, signal) => {
    let response;
    try {
      response = await fetch(`api/${path}`, {
        method, signal,
        headers: body === undefined ? {} : { "Content-Type": "application/json" },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch (error) {
      throw error.name === "AbortError" ? error : new Error(AWAY);
    }
    if (response.ok) return response;
    const told = await response.json().catch(() => ({}));
    throw new Error(wordsOf(told.detail) ?? `The studio answered with status ${response.status}.`);
  };

  const wordsOf = (detail) => (Array.isArray(detail) ? detail.map((one) => one.msg).join(" ") : detail);

  const ask = async (path, body, method = body === undefined ? "GET" : "POST") =>
    (await request(path, method, body)).json();

  const lines = async (path, body, hear, signal) => {
    const reader = (await request(path, "POST", body, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
    let held = "";
    for (;;) {
      const { value, done } = await reader.read().catch((error) => {
        throw error.name === "AbortError" ? error : new Error(AWAY);
      });
      if (done) return;
      const parts = (held + value).split("\n");
      held = parts.pop();
      parts.filter(Boolean).forEach((line) => hear(JSON.parse(line)));
    }
  };

  studio.playground = { ask, lines };
})();
