"use strict";
// The attention view: a text, the checkpoints of a training, its heads, and what each token looks at.
// interpViews.attention(root, settings, unpack, options) draws it and returns a handle.
//   settings   see interp.maps.view; phases, curves, roles and title may be missing.
//              begin: number of the text to begin with, if not the first; forms, form: see choose
//   unpack     key => Promise<Uint8Array>, for the keys "patterns-PERSON" and "predictions-PERSON"
//   options    fragment: name of the URL fragment that keeps the state, if any
//              find: text => Promise<text of settings.texts>, to look up other people; where several are
//              meant, its error has matches: [{ person, name }]
//              changed: state => {}, called after every change
//              choose: form => {}, of settings.forms; without them there is no such menu
(() => {
  const BLUE = [31, 131, 196], ORANGE = [213, 94, 0];
  const STRONGEST = 0.78; // opacity of a weight of 1: text on it stays readable
  const MEAN = "mean";
  const PARTS_OF_SCALE = [0, 0.05, 0.25, 0.5, 1];
  const DOWNLOADED_CELL = 9; // pixels
  const FRAME = 450; // milliseconds a checkpoint is shown while playing

  const opacity = (weight) => STRONGEST * Math.sqrt(weight);
  const shade = ([r, g, b], weight) => `rgba(${r},${g},${b},${opacity(weight).toFixed(3)})`;
  const percent = (share) => (share < 0.01 ? "<1%" : `${Math.round(100 * share)}%`);
  const whole = (number) => number.toLocaleString("en-US");
  const clamp = (number, low, high) => Math.min(high, Math.max(low, number));

  // Text from data goes in as text nodes and attributes, never as markup.
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "class") element.className = value;
      else if (name in element && typeof value !== "string") element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  // The weights of one text at all checkpoints: undoes the differences between checkpoints.
  class Maps {
    constructor(bytes, settings, text) {
      const { n_layers, n_heads, steps } = settings;
      this.n = text.tokens.length;
      this.triangle = (this.n * (this.n + 1)) / 2;
      this.heads = n_heads;
      this.size = n_layers * n_heads * this.triangle;
      if (bytes.length !== this.size * steps.length) {
        throw new Error(`attention maps of ${text.name} are incomplete`);
      }
      this.levels = bytes; // ours alone: unpack gives every caller an array of its own
      for (let i = this.size; i < bytes.length; i++) this.levels[i] += this.levels[i - this.size];
    }

    // The lower triangle of one head, or of the mean of a layer's heads, as weights.
    weights(step, layer, head) {
      const found = new Float32Array(this.triangle);
      const chosen = head === MEAN ? [...Array(this.heads).keys()] : [head];
      for (const one of chosen) {
        const start = step * this.size + (layer * this.heads + one) * this.triangle;
        for (let i = 0; i < this.triangle; i++) {
          found[i] += (this.levels[start + i] / 255) ** 2 / chosen.length;
        }
      }
      return found;
    }
  }

  // Predictions of the next token at every position and checkpoint.
  class Predictions {
    constructor(bytes, text) {
      this.bytes = bytes;
      this.n = text.tokens.length;
    }

    // Of a whole value, each of its tokens given those before.
    ofValue(step, { position, length }) {
      let product = 1;
      for (let i = 0; i < length; i++) product *= this.at(step, position + i).own;
      return product;
    }

    at(step, position) {
      const start = step * 4 * this.n;
      const word = start + 2 * this.n + 2 * position;
      return {
        own: this.bytes[start + position] / 255,
        probability: this.bytes[start + this.n + position] / 255,
        word: this.bytes[word] + 256 * this.bytes[word + 1],
      };
    }
  }

  const at = (query, key) => (query * (query + 1)) / 2 + key;

  function phaseOf(settings, step) {
    const phases = settings.phases ?? [];
    const found = phases.find(({ start, end }) => start <= step && step < end);
    return found ?? (phases.length ? phases[phases.length - 1] : null);
  }

  function stepWords(settings, index) {
    const step = settings.steps[index];
    const phase = phaseOf(settings, step);
    return `step ${whole(step)}${phase ? ` (${phase.name})` : ""}`;
  }

  // What the texts are called: those with wordings are biographies.
  const noun = (settings) => (settings.texts.every(({ wordings }) => wordings) ? "Biography" : "Text");

  function drawWeights(canvas, weights, n) {
    canvas.width = canvas.height = n;
    const context = canvas.getContext("2d");
    const image = context.createImageData(n, n);
    for (let query = 0; query < n; query++) {
      for (let key = 0; key <= query; key++) {
        const place = 4 * (query * n + key);
        [image.data[place], image.data[place + 1], image.data[place + 2]] = BLUE;
        image.data[place + 3] = 255 * opacity(weights[at(query, key)]);
      }
    }
    context.putImageData(image, 0, 0);
  }

  // ---- One panel: the text at one checkpoint, what the chosen token looks at, and the whole map. ----
  class Panel {
    constructor(view, name) {
      this.view = view;
      this.tokens = [];
      this.title = make("h4", { class: "av-panel-title" });
      this.list = make("div", { class: "av-text", role: "listbox", "aria-orientation": "horizontal" });
      this.readout = make("div", { class: "av-readout", id: `av-readout-${(Panel.count = (Panel.count ?? 0) + 1)}` });
      this.list.setAttribute("aria-describedby", this.readout.id);
      this.facts = make("ul", { class: "av-facts", "aria-label": "Facts, and how likely the model holds them" });
      this.canvas = make("canvas", { role: "img" });
      this.cross = make("div", { class: "av-cross", "aria-hidden": "true" }, make("i"), make("i"));
      this.under = make("p", { class: "av-under", "aria-hidden": "true" });
      this.element = make("div", { class: "av-panel", role: "group", "aria-label": name },
        this.title,
        make("div", { class: "av-panel-body" },
          make("div", { class: "av-reading" }, this.list, this.readout, this.facts),
          make("div", { class: "av-map" },
            make("div", { class: "av-frame" }, this.canvas, this.cross), this.under)));
      this.list.addEventListener("keydown", (event) => this.key(event));
      this.list.addEventListener("pointerover", (event) => this.point(event, true));
      this.list.addEventListener("pointerleave", () => view.hover(null));
      this.list.addEventListener("click", (event) => this.point(event, false));
      this.canvas.addEventListener("pointermove", (event) => this.pointMap(event, true));
      this.canvas.addEventListener("pointerleave", () => view.hover(null));
      this.canvas.addEventListener("click", (event) => this.pointMap(event, false));
    }

    setText(text) {
      this.text = text;
      this.tokens = text.tokens.map((token, position) => {
        const part = text.parts[position];
        const mark = text.marks[position];
        const means = part && mark === "value" ? `value, ${part}` : part || mark;
        return make("span", {
          class: `av-token av-${mark}`, role: "option", "data-position": String(position),
          "aria-label": `${token}, ${means}`, title: means,
        }, token);
      });
      this.list.replaceChildren(...this.tokens.flatMap((token) => [token, " "]));
      this.list.setAttribute("aria-label", text.wordings ? `Biography of ${text.name}: choose a token` : `Text ${text.name}: choose a token`);
      this.chips = text.facts.map((fact) => {
        const chip = make("button", { type: "button", class: "av-fact" },
          make("span", {}, fact.attribute), " ", make("strong", {}, fact.value), " ", make("em"));
        chip.setAttribute("aria-description", "Choose the position that predicts it");
        chip.addEventListener("click", () => this.view.set({ token: fact.position }));
        return chip;
      });
      this.facts.replaceChildren(...this.chips.map((chip) => make("li", {}, chip)));
      this.facts.hidden = !this.chips.length;
    }

    position(event) {
      const token = event.target.closest?.("[data-position]");
      return token && this.list.contains(token) ? Number(token.dataset.position) : null;
    }

    point(event, passing) {
      const position = this.position(event);
      if (position === null) return;
      if (!passing) this.view.set({ token: position });
      else if (event.pointerType !== "touch") this.view.hover(position);
    }

    pointMap(event, passing) {
      const box = this.canvas.getBoundingClientRect();
      const n = this.text.tokens.length;
      const query = clamp(Math.floor(((event.clientY - box.top) / box.height) * n), 0, n - 1);
      const key = clamp(Math.floor(((event.clientX - box.left) / box.width) * n), 0, n - 1);
      if (!passing) this.view.set({ token: query });
      else if (event.pointerType !== "touch") this.view.hover(query, key);
    }

    key(event) {
      const last = this.tokens.length - 1;
      const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
      const { token } = this.view.state;
      let next = null;
      if (event.key in moves) next = clamp(token + moves[event.key], 0, last);
      else if (event.key === "Home") next = 0;
      else if (event.key === "End") next = last;
      if (next === null) return;
      event.preventDefault();
      this.view.set({ token: next }).then(() => this.view.announce(this));
      this.tokens[next].focus();
    }

    draw(step, maps, predictions) {
      const { settings, state, hovered } = this.view;
      const n = this.text.tokens.length;
      const chosen = hovered.query ?? state.token;
      const weights = maps.weights(step, state.layer, state.head);
      const { name } = this.view.headWords();
      this.title.textContent = `${stepWords(settings, step)[0].toUpperCase()}${stepWords(settings, step).slice(1)}, ${name}`;
      this.tokens.forEach((token, position) => {
        const looksAt = position <= chosen ? weights[at(chosen, position)] : 0;
        const lookedAtBy = position > chosen ? weights[at(position, chosen)] : 0;
        token.style.backgroundColor = looksAt >= lookedAtBy ? shade(BLUE, looksAt) : shade(ORANGE, lookedAtBy);
        token.classList.toggle("av-chosen", position === chosen);
        token.setAttribute("aria-selected", String(position === state.token));
        token.tabIndex = position === state.token ? 0 : -1;
      });
      const from = [...Array(chosen + 1).keys()].map((key) => [key, weights[at(chosen, key)]]);
      const to = [...Array(n - chosen - 1).keys()]
        .map((i) => chosen + 1 + i).map((query) => [query, weights[at(query, chosen)]]);
      const next = predictions.at(step, chosen);
      this.readout.replaceChildren(
        make("p", { class: "av-of" },
          make("strong", {}, this.text.tokens[chosen]), ` (${this.tokens[chosen].title})`,
          chosen === n - 1 ? "" : `, next: ${settings.words[next.word]} ${percent(next.probability)}`,
          chosen === n - 1 || settings.words[next.word] === this.text.tokens[chosen + 1] ? ""
            : `; true: ${this.text.tokens[chosen + 1]} ${percent(next.own)}`),
        this.strongest(`attends to (uniform: ${(1 / (chosen + 1)).toFixed(2)})`, "av-from", from),
        this.strongest("is attended to by", "av-to", to));
      this.chips.forEach((chip, i) => {
        const fact = this.text.facts[i];
        const own = predictions.ofValue(step, fact);
        chip.querySelector("em").textContent = percent(own);
        chip.style.setProperty("--own", own.toFixed(3));
        chip.setAttribute("aria-pressed", String(fact.position === state.token));
      });
      drawWeights(this.canvas, weights, n);
      this.canvas.setAttribute("aria-label",
        `Attention map of ${name} at ${stepWords(settings, step)}: rows attend, columns are attended to. Choose tokens of the text to read the weights.`);
      const [row, column] = this.cross.children;
      row.style.top = `${(100 * (chosen + 0.5)) / n}%`;
      column.style.left = `${(100 * ((hovered.key ?? chosen) + 0.5)) / n}%`;
      const key = hovered.key;
      this.under.textContent = key === null || key === undefined
        ? "Rows attend to columns."
        : key > chosen ? "Nothing later can be attended to."
          : `${this.text.tokens[chosen]} → ${this.text.tokens[key]}: ${weights[at(chosen, key)].toFixed(3)}`;
      return weights;
    }

    // The strongest weights as words with bars.
    strongest(title, kind, pairs) {
      const best = pairs.filter(([, weight]) => weight >= 0.005)
        .sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, 5);
      const rows = best.map(([position, weight]) => {
        const bar = make("i");
        bar.style.width = `${(100 * weight).toFixed(1)}%`;
        return make("li", { class: kind }, make("span", {}, this.text.tokens[position]),
          make("small", { title: "position in the text" }, String(position)), make("span", { class: "av-bar", "aria-hidden": "true" }, bar), make("b", {}, weight.toFixed(2)));
      });
      return make("div", { class: "av-strongest" }, make("p", {}, title),
        rows.length ? make("ol", {}, ...rows) : make("p", { class: "av-none" }, "nothing above 0.005"));
    }
  }

  // ---- The slider over checkpoints, with the phases below it. ----
  class Time {
    constructor(view, label, field) {
      const { settings } = view;
      this.view = view;
      this.field = field;
      const last = settings.steps.length - 1;
      this.range = make("input", { type: "range", min: "0", max: String(last), step: "1", "aria-label": label });
      this.output = make("span", { class: "av-step" });
      const bands = make("div", { class: "av-phases", "aria-hidden": "true" });
      const place = (step) => {
        const index = settings.steps.findIndex((one) => one >= step);
        return last > 0 ? (100 * (index < 0 ? last : index)) / last : 0;
      };
      bands.hidden = !settings.phases?.length;
      for (const { name, number, start, end } of settings.phases ?? []) {
        const band = make("span", { class: `av-phase av-phase-${name}` }, `${number} ${name}`);
        band.style.left = `${place(start)}%`;
        band.style.width = `${place(end) - place(start)}%`;
        band.title = `${name}: from step ${whole(start)}`;
        bands.append(band);
      }
      this.element = make("div", { class: "av-time" },
        make("span", { class: "av-label" }, label),
        make("div", { class: "av-slider", hidden: last < 1 }, this.range, bands), this.output);
      this.range.addEventListener("input", () => view.set({ [field]: Number(this.range.value) }));
    }

    draw(index, text) {
      const { settings } = this.view;
      const { loss, accuracy } = settings.curves?.[text.held_out ? "held_out" : "evaluation"] ?? {};
      const who = text.held_out ? "held-out" : "known";
      const known = (curve) => curve && curve[index] !== null;
      const values = [
        ...(known(loss) ? [`loss ${loss[index].toFixed(2)} nats`] : []),
        ...(known(accuracy) ? [`accuracy ${percent(accuracy[index])}`] : []),
      ];
      const measured = values.length ? ` · all ${who} people: ${values.join(", ")}` : "";
      this.range.value = String(index);
      this.range.setAttribute("aria-valuetext", stepWords(settings, index));
      this.output.textContent = `${stepWords(settings, index)}${measured}`;
    }
  }

  class View {
    constructor(root, settings, unpack, options) {
      Object.assign(this, { root, settings, unpack, options });
      this.read = new Map();
      this.hovered = { query: null, key: null };
      this.playing = null;
      this.drawn = Promise.resolve();
      const last = settings.steps.length - 1;
      this.state = {
        person: settings.begin ?? settings.texts[0].person, step: last, layer: settings.n_layers - 1, head: null,
        token: null, compare: null, ...this.fromFragment(),
      };
      this.build();
      // The browser knows no element of the name of such a link.
      if (Object.keys(this.fromFragment()).length) this.drawn.then(() => this.reveal());
    }

    build() {
      const { settings } = this;
      this.people = make("select", { class: "av-person", "aria-label": noun(settings) });
      this.listPeople();
      this.people.addEventListener("change", () => this.set({ person: Number(this.people.value), token: null }));
      this.play = make("button", { type: "button", class: "av-play" });
      this.play.addEventListener("click", () => this.togglePlay());
      this.compare = make("input", { type: "checkbox" });
      this.compare.addEventListener("change", () => this.set({
        compare: this.compare.checked ? this.defaultComparison() : null,
      }));
      this.time = new Time(this, "Checkpoint", "step");
      this.other = new Time(this, "Compared with", "compare");
      const tools = make("div", { class: "av-tools" }, ...this.tools());
      this.thumbs = make("div", { class: "av-heads", role: "radiogroup", "aria-label": "Layer and head" });
      this.heads = [];
      for (let layer = 0; layer < settings.n_layers; layer++) {
        const row = make("div", { class: "av-layer" }, make("span", { class: "av-label" }, `Layer ${layer}`));
        for (const head of [...Array(settings.n_heads).keys(), MEAN]) {
          const canvas = make("canvas", { "aria-hidden": "true" });
          const role = make("small", { hidden: !settings.roles });
          const button = make("button", { type: "button", class: "av-head", role: "radio" },
            canvas, make("span", {}, `${layer}.${head}`), role);
          button.addEventListener("click", () => this.set({ layer, head }));
          this.heads.push({ layer, head, button, canvas, role });
          row.append(button);
        }
        this.thumbs.append(row);
      }
      this.thumbs.addEventListener("keydown", (event) => this.headKey(event));
      this.panels = [new Panel(this, "Attention at the checkpoint"), new Panel(this, "Attention at the compared checkpoint")];
      this.message = make("p", { class: "av-message", role: "status" }); // on who is shown
      this.matches = make("ul", { class: "av-matches", "aria-label": "Matches", hidden: true });
      this.done = make("p", { class: "av-done", role: "status" }); // on what was saved or copied
      tools.append(this.done);
      this.live = make("p", { class: "av-hidden", "aria-live": "polite" });
      const head = make("div", { class: "av-bar-top" }, make("label", {}, make("span", { class: "av-label" }, noun(settings)), this.people));
      if (this.options.find) head.append(this.searchField());
      if (settings.forms) head.append(this.formMenu());
      head.append(this.message, this.matches);
      const comparison = make("label", { class: "av-compare" }, this.compare, " Compare with another checkpoint");
      this.play.hidden = comparison.hidden = settings.steps.length < 2;
      this.body = make("div", { class: "av-body" },
        head,
        make("div", { class: "av-times" }, this.play, this.time.element),
        comparison,
        this.other.element,
        this.thumbs, this.legend(),
        make("div", { class: "av-panels" }, ...this.panels.map((panel) => panel.element)),
        tools, this.live);
      this.root.classList.add("attention-view");
      this.root.replaceChildren(this.body);
      if (this.options.fragment) addEventListener("hashchange", () => {
        const found = this.fromFragment();
        if (!Object.keys(found).length) return;
        this.set({ compare: null, ...found }, true).then(() => this.reveal());
      });
      this.set({});
    }

    reveal() {
      (this.root.closest("figure") ?? this.root).scrollIntoView();
    }

    listPeople() {
      this.people.replaceChildren(...this.settings.texts.map((text) => make("option", { value: String(text.person) },
        `${text.name}${text.held_out ? " (held out: never trained on)" : ""}${text.wordings === "train" ? ", training wordings" : ""}`)));
    }

    // In which form of text people are shown; another one gives the view other settings.
    formMenu() {
      const { forms, form } = this.settings;
      this.form = make("select", { class: "av-form" }, ...forms.map((name) => make("option", { value: name }, name.replaceAll("_", " "))));
      this.form.value = form;
      this.form.addEventListener("change", () => {
        this.stop();
        this.say("Reading the checkpoints …");
        this.options.choose(this.form.value);
      });
      return make("label", {}, make("span", { class: "av-label" }, "Form"), this.form);
    }

    searchField() {
      const field = make("input", { type: "search", placeholder: "name or number", "aria-label": "Another person, by name or number" });
      const form = make("form", { class: "av-search" }, field, make("button", { type: "submit" }, "Show"));
      this.field = field;
      // JupyterLab keeps the key from submitting the form.
      field.addEventListener("keydown", (event) => {
        if (event.key !== "Enter") return;
        event.preventDefault();
        form.requestSubmit();
      });
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        if (field.value.trim()) this.search(field.value.trim());
      });
      return form;
    }

    // Shows who is asked for, by name or number, or says whom that can mean.
    async search(wanted) {
      const search = (this.searched = {}); // of two at once the last counts
      this.say("Reading the checkpoints …");
      try {
        const text = await this.options.find(wanted);
        if (this.searched !== search) return;
        if (!this.settings.texts.some((one) => one.person === text.person)) this.settings.texts.push(text);
        this.listPeople();
        this.set({ person: text.person, token: null });
      } catch (error) {
        if (this.searched === search) this.say(error.message, error.matches);
      }
    }

    legend() {
      const scale = make("span", { class: "av-scale" });
      for (const weight of PARTS_OF_SCALE) {
        const step = make("i", {}, String(weight));
        step.style.backgroundColor = shade(BLUE, weight);
        scale.append(step);
      }
      const swatch = (kind, words) => make("span", {}, make("i", { class: `av-swatch ${kind}` }), ` ${words}`);
      const marked = (kind, words) => make("span", { class: `av-token av-${kind}` }, words);
      const present = new Set(this.settings.texts.flatMap(({ marks }) => marks));
      const kinds = [["name", "name"], ["value", "value"], ["type", "type word"]]
        .filter(([kind]) => present.has(kind)).flatMap(([kind, words]) => [" ", marked(kind, words)]);
      return make("div", { class: "av-legend" },
        swatch("av-from", "what the chosen token attends to"),
        swatch("av-to", "what attends to it (later tokens)"),
        make("span", {}, "weight (opacity goes with its root) ", scale),
        ...(kinds.length ? [make("span", {}, "tokens:", ...kinds)] : []));
    }

    tools() {
      const button = (words, label, action) => {
        const made = make("button", { type: "button", "aria-label": label, disabled: true }, words);
        made.addEventListener("click", action);
        return made;
      };
      const tools = [
        button("PNG", "Save the attention map as PNG", () => this.save("png")),
        button("SVG", "Save the attention map as SVG", () => this.save("svg")),
      ];
      if (this.options.fragment) {
        tools.push(button("Copy link to this view", "Copy link to this view", () => this.copyLink()));
      }
      return tools;
    }

    defaultComparison() {
      // The end of the plateau tells most; else the middle of training.
      const { settings } = this;
      const plateau = settings.phases?.find(({ name }) => name === "plateau");
      const index = plateau ? settings.steps.findIndex((step) => step >= plateau.end) : -1;
      const middle = Math.floor(settings.steps.length / 2);
      const found = index < 0 ? middle : index;
      return found === this.state.step ? 0 : found;
    }

    headWords() {
      const { layer, head } = this.state;
      return head === MEAN ? { name: `mean of layer ${layer}'s heads` } : { name: `head ${layer}.${head}` };
    }

    headKey(event) {
      const columns = this.settings.n_heads + 1;
      const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
      if (!(event.key in moves)) return;
      event.preventDefault();
      const now = this.heads.findIndex(({ layer, head }) => layer === this.state.layer && head === this.state.head);
      const next = this.heads[(now + moves[event.key] + this.heads.length) % this.heads.length];
      this.set({ layer: next.layer, head: next.head });
      next.button.focus();
    }

    togglePlay() {
      if (this.playing) return this.stop();
      if (this.state.step === this.settings.steps.length - 1) this.set({ step: 0 });
      this.playing = setInterval(() => {
        if (this.state.step >= this.settings.steps.length - 1) this.stop();
        else this.set({ step: this.state.step + 1 });
      }, FRAME);
      this.drawPlay();
    }

    stop() {
      clearInterval(this.playing);
      this.playing = null;
      this.drawPlay();
    }

    drawPlay() {
      this.play.textContent = this.playing ? "⏸ Pause" : "▶ Play";
      this.play.setAttribute("aria-label", this.playing ? "Pause" : "Play through training");
    }

    // For those who hear the page: what the readout of a panel says.
    announce(panel) {
      const items = (kind) => [...panel.readout.querySelectorAll(`li.${kind}`)].slice(0, 3)
        .map((item) => `${item.firstChild.textContent} ${item.lastChild.textContent}`).join(", ") || "nothing";
      this.live.textContent = `attends to ${items("av-from")}; is attended to by ${items("av-to")}`;
    }

    // Beside the choice of who is shown; matches are there to be chosen.
    say(words, matches = []) {
      this.message.textContent = words;
      this.matches.replaceChildren(...matches.map(({ person, name }) => {
        const match = make("button", { type: "button" }, name, " ", make("small", {}, String(person)));
        match.addEventListener("click", () => {
          this.field.focus(); // the button goes
          this.search(String(person));
        });
        return make("li", {}, match);
      }));
      this.matches.hidden = !matches.length;
    }

    hover(query, key = null) {
      if (this.hovered.query === query && this.hovered.key === key) return;
      this.hovered = { query, key };
      if (this.current && this.shown === this.state) this.drawPanels();
    }

    // Changes the state, draws it, and keeps it in the fragment.
    set(change, quiet = false) {
      // The pointer may rest on another token than the one that keys have just chosen.
      if ("token" in change || "person" in change) this.hovered = { query: null, key: null };
      if ("person" in change) this.say("");
      this.state = { ...this.state, ...change };
      this.drawn = this.refresh(quiet);
      return this.drawn;
    }

    async refresh(quiet) {
      const { settings, state } = this;
      const last = settings.steps.length - 1;
      const text = settings.texts.find(({ person }) => person === state.person) ?? settings.texts[0];
      state.person = text.person;
      state.step = clamp(state.step, 0, last);
      state.compare = state.compare === null ? null : clamp(state.compare, 0, last);
      state.token = state.token === null ? this.defaultToken(text) : clamp(state.token, 0, text.tokens.length - 1);
      let found;
      if (!this.read.has(text.person)) this.say("Reading the checkpoints …");
      try {
        found = await this.load(text);
      } catch (error) {
        this.read.delete(text.person); // another try may succeed
        if (this.state !== state) return;
        this.say(`This ${noun(settings).toLowerCase()} cannot be shown: ${error.message}`);
        return;
      }
      if (this.state !== state) return; // changed meanwhile: that change draws
      if (!this.matches.children.length) this.say(""); // matches stay until somebody is chosen
      this.done.textContent = "";
      this.shown = state;
      this.current = found;
      for (const button of this.body.querySelectorAll(".av-tools button")) button.disabled = false;
      state.head ??= this.defaultHead(text, found.maps);
      this.people.value = String(state.person);
      for (const panel of this.panels) if (panel.text !== text) panel.setText(text);
      this.compare.checked = state.compare !== null;
      this.other.element.hidden = this.panels[1].element.hidden = state.compare === null;
      this.body.classList.toggle("av-two", state.compare !== null);
      this.time.draw(state.step, text);
      if (state.compare !== null) this.other.draw(state.compare, text);
      this.drawHeads();
      this.drawPanels();
      this.drawPlay();
      if (!quiet) this.toFragment();
      this.options.changed?.(this.publicState());
    }

    defaultToken(text) {
      const fact = text.facts.find(({ attribute }) => attribute === "university") ?? text.facts[0];
      return fact ? fact.position : text.tokens.length - 1;
    }

    // Of the last layer, the head that in the end looks most at names where the fact is predicted.
    defaultHead(text, maps) {
      const share = (head) => {
        const weights = maps.weights(this.settings.steps.length - 1, this.state.layer, head);
        return [...Array(this.state.token + 1).keys()]
          .filter((key) => text.marks[key] === "name")
          .reduce((sum, key) => sum + weights[at(this.state.token, key)], 0);
      };
      const shares = [...Array(this.settings.n_heads).keys()].map(share);
      return shares.indexOf(Math.max(...shares));
    }

    load(text) {
      if (!this.read.has(text.person)) {
        const loading = Promise.all([this.unpack(`patterns-${text.person}`), this.unpack(`predictions-${text.person}`)])
          .then(([patterns, predictions]) => ({
            maps: new Maps(patterns, this.settings, text), predictions: new Predictions(predictions, text),
          }));
        this.read.set(text.person, loading);
      }
      return this.read.get(text.person);
    }

    drawHeads() {
      const { settings, state } = this;
      const { maps } = this.current;
      const shown = `${state.person} ${state.step}`; // choosing a token or a head changes no picture
      const redraw = this.headsShown !== shown;
      this.headsShown = shown;
      for (const { layer, head, button, canvas, role } of this.heads) {
        const chosen = layer === state.layer && head === state.head;
        const name = head === MEAN ? "" : settings.roles?.[state.step][layer][head] ?? "";
        if (redraw) drawWeights(canvas, maps.weights(state.step, layer, head), maps.n);
        role.textContent = name === "none" ? "" : name;
        button.setAttribute("aria-checked", String(chosen));
        button.setAttribute("aria-label",
          `${head === MEAN ? `mean of layer ${layer} (${layer}.mean)` : `head ${layer}.${head}`}${role.textContent ? `, ${role.textContent}` : ""}`);
        button.tabIndex = chosen ? 0 : -1;
      }
    }

    drawPanels() {
      const { state, current } = this;
      const steps = [state.step, state.compare];
      this.panels.forEach((panel, i) => {
        if (steps[i] !== null) panel.draw(steps[i], current.maps, current.predictions);
      });
    }

    // ---- State outside: the fragment of the address, and what a notebook sees. ----
    publicState() {
      const { settings, state } = this;
      return {
        person: state.person, step: settings.steps[state.step], head: `${state.layer}.${state.head}`,
        token: state.token, compare: state.compare === null ? null : settings.steps[state.compare],
      };
    }

    // From the public form: only what is given and makes sense here.
    fromPublic(given) {
      const { settings } = this;
      const found = {};
      const index = (step) => {
        const wanted = Math.min(step, settings.steps.at(-1));
        return settings.steps.reduce((best, one, i) =>
          (Math.abs(one - wanted) < Math.abs(settings.steps[best] - wanted) ? i : best), 0);
      };
      const number = (value) => (value === null || value === undefined || value === "" ? NaN : Number(value));
      if (settings.texts.some(({ person }) => person === number(given.person))) found.person = number(given.person);
      if (number(given.step) >= 0) found.step = index(number(given.step));
      if (number(given.compare) >= 0) found.compare = index(number(given.compare));
      else if ("compare" in given) found.compare = null;
      if (Number.isInteger(number(given.token)) && number(given.token) >= 0) found.token = number(given.token);
      const [layer, head] = String(given.head ?? "").split(".");
      const known = /^\d+$/.test(layer) && Number(layer) < settings.n_layers;
      if (known && (head === MEAN || (/^\d+$/.test(head ?? "") && Number(head) < settings.n_heads))) {
        Object.assign(found, { layer: Number(layer), head: head === MEAN ? MEAN : Number(head) });
      }
      return found;
    }

    fromFragment() {
      const { fragment } = this.options;
      const [name, query] = location.hash.slice(1).split("?");
      if (!fragment || name !== fragment || !query) return {};
      return this.fromPublic(Object.fromEntries(new URLSearchParams(query)));
    }

    fragmentText() {
      const state = Object.entries(this.publicState()).filter(([, value]) => value !== null);
      return `#${this.options.fragment}?${new URLSearchParams(state)}`;
    }

    toFragment() {
      // Only once the reader has changed something: a page that is merely read keeps its address.
      if (!this.options.fragment) return;
      if (this.touched) {
        clearTimeout(this.addressing); // browsers refuse many changes in a short time
        this.addressing = setTimeout(() => this.address(), 150);
      }
      this.touched = true;
    }

    // Pages inside other pages may have no address to change.
    address() {
      try {
        history.replaceState(null, "", this.fragmentText());
      } catch {
        // The link can still be copied.
      }
    }

    async copyLink() {
      const link = location.href.split("#")[0] + this.fragmentText();
      this.address();
      try {
        await navigator.clipboard.writeText(link);
        this.done.textContent = "The link to this view is copied.";
      } catch {
        this.done.textContent = "The link to this view is in the address bar.";
      }
    }

    // ---- Saving the map, or both maps, as a figure. ----
    svg() {
      const { state, settings, current } = this;
      const { text } = this.panels[0];
      const n = text.tokens.length;
      const steps = [state.step, ...(state.compare === null ? [] : [state.compare])];
      const side = n * DOWNLOADED_CELL, margin = 110, top = 130;
      const width = steps.length * (side + margin) + 20, height = top + side + 20;
      const escape = (words) => String(words).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
      const parts = [`<rect width="${width}" height="${height}" fill="#fff"/>`];
      const words = (x, y, size, content, more = "") =>
        parts.push(`<text x="${x}" y="${y}" font-size="${size}" fill="#1c2126" ${more}>${escape(content)}</text>`);
      words(10, 22, 15, `Attention of ${this.headWords().name}: ${text.name}`, 'font-weight="bold"');
      words(10, 40, 12, `Rows attend to columns. Opacity grows with the square root of the weight, to ${STRONGEST} at weight 1.${settings.title ? ` Run ${settings.title}.` : ""}`);
      steps.forEach((step, i) => {
        const left = margin + i * (side + margin);
        const weights = current.maps.weights(step, state.layer, state.head);
        words(left, 58, 13, stepWords(settings, step), 'font-weight="bold"');
        text.tokens.forEach((token, place) => {
          const bold = ["name", "value"].includes(text.marks[place]) ? 'font-weight="bold"' : "";
          const middle = (place + 0.75) * DOWNLOADED_CELL;
          words(left - 4, top + middle, 7.5, token, `text-anchor="end" ${bold}`);
          words(0, 0, 7.5, token, `${bold} transform="translate(${left + middle},${top - 4}) rotate(-60)"`);
        });
        for (let query = 0; query < n; query++) {
          for (let key = 0; key <= query; key++) {
            const weight = weights[at(query, key)];
            if (weight < 0.002) continue;
            parts.push(`<rect x="${left + key * DOWNLOADED_CELL}" y="${top + query * DOWNLOADED_CELL}" width="${DOWNLOADED_CELL}" height="${DOWNLOADED_CELL}" fill="rgb(${BLUE})" fill-opacity="${opacity(weight).toFixed(3)}"><title>${escape(text.tokens[query])} → ${escape(text.tokens[key])}: ${weight.toFixed(3)}</title></rect>`);
          }
        }
        parts.push(`<path d="M${left},${top}v${side}h${side}v${-side}z" fill="none" stroke="#888"/>`);
      });
      return { width, height, source: `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif">${parts.join("")}</svg>` };
    }

    async save(kind) {
      const { width, height, source } = this.svg();
      const vector = new Blob([source], { type: "image/svg+xml" });
      const { person, head, step, compare } = this.publicState();
      const steps = compare === null ? step : `${step}-and-${compare}`;
      const what = noun(this.settings) === "Biography" ? "person" : "text";
      const name = `attention-${what}-${person}-head-${head}-step-${steps}.${kind}`;
      if (kind === "svg") return this.download(name, vector);
      const address = URL.createObjectURL(vector);
      const image = new Image();
      try {
        await new Promise((resolve, reject) => {
          image.onload = resolve;
          image.onerror = () => reject(new Error("the browser could not draw the figure"));
          image.src = address;
        });
        const canvas = make("canvas", { width: 2 * width, height: 2 * height });
        canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
        this.download(name, await new Promise((resolve) => canvas.toBlob(resolve, "image/png")));
      } catch (error) {
        this.done.textContent = `Not saved: ${error.message}.`;
      } finally {
        URL.revokeObjectURL(address);
      }
    }

    download(name, blob) {
      if (globalThis.interpPage) return globalThis.interpPage.download(name, blob);
      const address = URL.createObjectURL(blob);
      const link = make("a", { href: address, download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(address), 1000);
    }
  }

  globalThis.interpViews ??= {};
  globalThis.interpViews.attention = (root, settings, unpack, options = {}) => {
    const fragment = options.fragment ?? settings.fragment;
    return new View(root, settings, unpack, { ...options, fragment });
  };
})();
