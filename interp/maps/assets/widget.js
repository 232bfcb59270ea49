// The attention view in Jupyter: maps come from the kernel as messages, and the state is shared with it.
export default {
  render({ model, el }) {
    const root = document.createElement("div");
    el.append(root);
    // JupyterLab would take keys for its own: arrows for other cells, X to cut this one. It asks the element
    // that has the focus first, and only then those around it.
    el.addEventListener("focusin", ({ target }) => target.setAttribute("data-lm-suppress-shortcuts", "true"));
    let view = show(model, root);
    const again = () => { // another form: other texts, other settings
      const chosen = root.querySelector(".av-form:focus") !== null;
      view.end();
      view = show(model, root);
      if (chosen) root.querySelector(".av-form")?.focus();
    };
    model.on("change:settings", again);
    return () => {
      model.off("change:settings", again);
      view.end();
    };
  },
};

// The view of the settings as they are.
function show(model, root) {
  const settings = structuredClone(model.get("settings")); // views of one model must not share it
  const me = crypto.getRandomValues(new Uint32Array(1))[0];
  const waiting = new Map(); // number of a question => what to do with its answer
  const kept = new Map(); // key => bytes, of texts that the kernel has sent
  let asked = 0;

  const answered = (message, buffers) => {
    if (message?.refused) { // the form that was chosen
      view.form.value = settings.form;
      view.say(message.refused);
    }
    const settle = waiting.get(message?.question);
    if (!settle) return;
    waiting.delete(message.question);
    if (message.error) settle.reject(Object.assign(new Error(message.error), { matches: message.matches }));
    else settle.resolve({ message, buffers });
  };
  model.on("msg:custom", answered);
  const ask = (question) => new Promise((resolve, reject) => {
    const name = `${me}-${(asked += 1)}`;
    waiting.set(name, { resolve, reject });
    model.send({ ...question, question: name });
  });
  const receive = async (person) => {
    const { message, buffers } = await ask({ person });
    if (message.words.length > settings.words.length) settings.words = message.words; // it only grows
    buffers.forEach((buffer, i) => kept.set(
      `${message.keys[i]}-${message.text.person}`,
      new Uint8Array(buffer.buffer ?? buffer, buffer.byteOffset ?? 0, buffer.byteLength),
    ));
    return message.text;
  };
  const reading = new Map();
  const read = (person) => {
    const key = String(person);
    if (!reading.has(key)) reading.set(key, receive(person).finally(() => reading.delete(key)));
    return reading.get(key);
  };
  const unpack = async (key) => {
    if (!kept.has(key)) await read(Number(key.split("-")[1]));
    const bytes = kept.get(key);
    kept.delete(key); // the view keeps what it has read
    return bytes;
  };

  let ended = false;
  let heard = null; // the last state that came from, or went to, the kernel
  const view = globalThis.interpViews.attention(root, settings, unpack, {
    fragment: "",
    find: settings.search ? read : null, // without it, all texts are listed
    choose: (form) => {
      model.set("form", form);
      model.save_changes();
    },
    changed: (state) => {
      if (ended || JSON.stringify(state) === heard) return;
      heard = JSON.stringify(state);
      model.set("state", state);
      model.save_changes();
    },
  });
  const told = async () => {
    const state = model.get("state");
    if (JSON.stringify(state) === heard) return;
    const news = (heard = JSON.stringify(state));
    const known = () => settings.texts.some(({ person }) => person === state.person);
    if (state.person !== undefined && !known()) {
      try {
        const text = await read(state.person);
        if (!known()) settings.texts.push(text);
      } catch (error) {
        return view.say(error.message);
      }
      view.listPeople();
      if (heard !== news) return; // told, or done, something else meanwhile
    }
    view.set({ token: null, ...view.fromPublic(state) });
  };
  model.on("change:state", told);
  if (Object.keys(model.get("state")).length) told();
  const end = () => {
    ended = true;
    view.stop();
    model.off("msg:custom", answered);
    model.off("change:state", told);
  };
  return { end };
}
