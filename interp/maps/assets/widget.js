// The attention view in Jupyter: maps come from the kernel as messages, and the state is shared with it.
export default {
  render({ model, el }) {
    const settings = model.get("settings");
    const root = document.createElement("div");
    el.append(root);
    // JupyterLab would take arrow keys and Enter for its own.
    el.setAttribute("data-lm-suppress-shortcuts", "true");
    const waiting = new Map(); // number of a question => what to do with its answer
    const kept = new Map(); // key => bytes, of people that the kernel has sent
    let asked = 0;

    const answered = (message, buffers) => {
      const settle = waiting.get(message?.question);
      if (!settle) return;
      waiting.delete(message.question);
      if (message.error) settle.reject(new Error(message.error));
      else settle.resolve({ message, buffers });
    };
    model.on("msg:custom", answered);
    const ask = (question) => new Promise((resolve, reject) => {
      asked += 1;
      waiting.set(asked, { resolve, reject });
      model.send({ ...question, question: asked });
    });
    const read = async (person) => {
      const { message, buffers } = await ask({ person });
      settings.words = message.words;
      buffers.forEach((buffer, i) => kept.set(
        `${message.keys[i]}-${message.text.person}`,
        new Uint8Array(buffer.buffer ?? buffer, buffer.byteOffset ?? 0, buffer.byteLength),
      ));
      return message.text;
    };
    const unpack = async (key) => {
      if (!kept.has(key)) await read(Number(key.split("-")[1]));
      return kept.get(key);
    };

    let heard = null; // the last state that came from, or went to, the kernel
    const view = globalThis.interpViews.attention(root, settings, unpack, {
      fragment: "",
      find: read,
      changed: (state) => {
        if (JSON.stringify(state) === heard) return;
        heard = JSON.stringify(state);
        model.set("state", state);
        model.save_changes();
      },
    });
    const told = async () => {
      const state = model.get("state");
      if (JSON.stringify(state) === heard) return;
      heard = JSON.stringify(state);
      if (state.person !== undefined && !settings.texts.some(({ person }) => person === state.person)) {
        settings.texts.push(await read(state.person));
        view.listPeople();
      }
      view.set({ token: null, ...view.fromPublic(state) });
    };
    model.on("change:state", told);
    if (Object.keys(model.get("state")).length) told();
    return () => {
      view.stop();
      model.off("msg:custom", answered);
      model.off("change:state", told);
    };
  },
};
