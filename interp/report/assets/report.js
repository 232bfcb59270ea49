"use strict";
// Brings the page to life: draws figures and views as they come near the window, saves what it shows.
// Views put their functions into `interpViews`; `interpPage` is what they may use of this page.
globalThis.interpViews ??= {};
globalThis.interpPage = (() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const json = (id, reviver) => JSON.parse(document.getElementById(id).textContent, reviver);

  // ---- What lies deflated in the page

  const tooOld =
    "This browser cannot unpack what the page holds (it has no DecompressionStream; Chrome 80, " +
    "Firefox 113 and Safari 16.4 and later have). The tables show the results without it.";

  function bytesOf(base64) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  }

  /** The bytes of a packed element, as a Promise of a Uint8Array. */
  async function unpack(id) {
    if (typeof DecompressionStream === "undefined") throw new Error(tooOld);
    const packed = document.getElementById(id);
    if (packed === null) throw new Error(`The page holds no packed data “${id}”.`);
    const stream = new Blob([bytesOf(packed.textContent)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  /** Runs plotly.js as an inline script, whose hash the page's policy names. */
  async function startPlotly() {
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(await unpack("plotly-js"));
    document.head.append(script);
    if (typeof Plotly === "undefined") throw new Error("The library that draws figures did not start.");
    document.getElementById("plotly-js").remove(); // 2 MB of text
  }

  function show(element, error) {
    const notice = document.createElement("p");
    notice.className = "notice";
    notice.setAttribute("role", "alert");
    notice.textContent = error.message;
    element.replaceChildren(notice);
    element.style.minHeight = "";
    if (error.message !== tooOld) console.error(error);
  }

  // ---- Figures

  const config = {
    responsive: true,
    displaylogo: false,
    // No button that would send a figure away.
    showSendToCloud: false,
    // The buttons of the page save figures with a background and a title.
    modeBarButtonsToRemove: ["toImage"],
    plotlyServerURL: "",
  };
  const plots = all("[data-figure]");
  const plotly = plots.length ? startPlotly() : Promise.resolve();
  plotly.catch(() => {}); // shown where a figure would be

  /** Data and layout of a figure, as new objects: plotly writes into what it is given. */
  function figureOf(plot, reviver) {
    const { data, layout } = json(plot.dataset.figure, reviver);
    layout.template ??= json("figure-template", reviver);
    return { data, layout };
  }

  /** Draws a figure; once plotly.js runs, before this returns. */
  function draw(plot) {
    if (plot.dataset.drawn) return;
    plot.dataset.drawn = "true";
    const { data, layout } = figureOf(plot);
    Plotly.newPlot(plot, data, layout, config).catch((error) => show(plot, error));
  }

  // ---- Views

  const views = all("[data-view]");

  async function start(view) {
    if (view.dataset.drawn) return;
    view.dataset.drawn = "true";
    const { view: name, anchor } = view.dataset;
    try {
      if (!(name in interpViews)) throw new Error(`The page has no view “${name}”.`);
      view.replaceChildren();
      await interpViews[name](view, json(`${anchor}-settings`), (key) => unpack(`${anchor}-${key}`));
    } catch (error) {
      show(view, error);
    }
  }

  // ---- When to draw

  const begin = (element) =>
    element.dataset.view
      ? start(element)
      : plotly.then(() => draw(element)).catch((error) => show(element, error));
  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        begin(target);
      }
    },
    { rootMargin: "600px 0px" },
  );
  // ---- What is folded away

  /** Opens what an address points to: folds around it, and of a section the fold of its main part. */
  function reveal(hash) {
    // A view may keep its state behind its anchor: #anchor?state.
    const [anchor] = decodeURIComponent(hash.slice(1)).split("?");
    const target = document.getElementById(anchor);
    if (target === null) return;
    const main = target.matches("h2") && target.parentElement.querySelector("[data-main]");
    if (main) main.open = true;
    for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    if (location.hash === hash) target.scrollIntoView();
    for (const view of views) if (view.dataset.anchor === anchor) start(view);
  }
  addEventListener("DOMContentLoaded", () => {
    for (const element of [...plots, ...views]) near.observe(element);
    reveal(location.hash);
  });
  addEventListener("hashchange", () => reveal(location.hash));
  // The same address twice is no change.
  addEventListener("click", ({ target }) => {
    const link = target.closest?.('a[href^="#"]');
    if (link) reveal(link.hash);
  });
  // A window may have become wider while a figure was folded away.
  const resize = (fold) => {
    for (const plot of all(".plot[data-drawn]", fold)) if (fold.open) Plotly.Plots.resize(plot);
  };
  document.addEventListener("toggle", ({ target }) => resize(target), true);

  // ---- Printing: everything is drawn, folded texts are open, figures have the paper's width

  const printWidth = 660;
  const folded = all("details");
  let wereOpen = [];
  addEventListener("beforeprint", () => {
    wereOpen = folded.map((item) => item.open);
    for (const item of folded) item.open = true;
    for (const view of views) start(view);
    if (typeof Plotly === "undefined") return;
    for (const plot of plots) {
      draw(plot);
      Plotly.relayout(plot, { width: printWidth });
    }
  });
  addEventListener("afterprint", () => {
    folded.forEach((item, i) => { item.open = wereOpen[i] ?? item.open; });
    if (typeof Plotly === "undefined") return;
    for (const plot of plots) Plotly.relayout(plot, { width: null, autosize: true });
  });

  // ---- Saving

  /** Words as a part of a file name: letters and digits of any language, and hyphens. */
  const slug = (words) => words.toLowerCase().match(/[\p{L}\p{N}]+/gu)?.join("-") ?? "report";

  /** Offers a file; its name is that of the page and `name`, such as "attention.png". */
  function download(name, blob) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${slug(document.title)}-${name}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  /** A figure as it is saved: on white, with dark ink, and with its title. */
  function figureToSave(plot) {
    // The ink of figures suits white and black pages alike; here it may be as dark as on paper.
    const ink = json("figure-template").layout.font.color;
    const { data, layout } = figureOf(plot, (_, value) => (value === ink ? "#1c2126" : value));
    const title = document.getElementById(plot.id.replace(/-plot$/, "")).textContent;
    const space = 40;
    const height = (layout.height ?? plot.clientHeight) + space;
    Object.assign(layout, { height, width: 1000, paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff" });
    layout.title = { ...layout.title, text: title };
    layout.margin = { ...layout.margin, t: (layout.margin?.t ?? 12) + space };
    return { data, layout };
  }

  async function savePlot(plot, format) {
    await plotly;
    const { data, layout } = figureToSave(plot);
    const { width, height } = layout;
    const options = { format, width, height, scale: format === "png" ? 2 : 1, imageDataOnly: true };
    const content = await Plotly.toImage({ data, layout, config }, options);
    const blob =
      format === "svg"
        ? new Blob([content], { type: "image/svg+xml" })
        : new Blob([bytesOf(content)], { type: "image/png" });
    download(`${plot.id.replace(/-plot$/, "")}.${format}`, blob);
  }

  /** A table as CSV (RFC 4180). */
  function csv(table) {
    const cell = ({ textContent }) =>
      /[",\r\n]/.test(textContent) ? `"${textContent.replaceAll('"', '""')}"` : textContent;
    return [...table.rows].map((row) => [...row.cells].map(cell).join(",") + "\r\n").join("");
  }

  for (const buttons of all(".save")) buttons.hidden = false;
  for (const button of all("[data-save]")) {
    const plot = button.closest("figure").querySelector(".plot");
    button.addEventListener("click", () =>
      savePlot(plot, button.dataset.save).catch((error) => show(plot, error)),
    );
  }
  for (const button of all("[data-table]")) {
    const id = button.dataset.table;
    button.addEventListener("click", () =>
      download(`${id}.csv`, new Blob([csv(document.getElementById(id))], { type: "text/csv" })),
    );
  }

  for (const button of all("[data-csv]")) {
    const name = button.dataset.csv;
    button.addEventListener("click", () =>
      unpack(`${name}-csv`)
        .then((bytes) => download(`${name}.csv`, new Blob([bytes], { type: "text/csv" })))
        .catch((error) => show(button.parentElement, error)),
    );
  }

  // ---- The list of sections, which folds away where it would not fit

  const nav = document.querySelector("nav");
  const menu = nav.querySelector(".menu");
  document.documentElement.classList.add("scripted");
  menu.hidden = false;
  const unfold = (open) => menu.setAttribute("aria-expanded", String(open));
  menu.addEventListener("click", () => unfold(menu.getAttribute("aria-expanded") !== "true"));
  nav.querySelector("ul").addEventListener("click", () => unfold(false));
  addEventListener("keydown", ({ key }) => {
    if (key !== "Escape" || menu.getAttribute("aria-expanded") !== "true") return;
    unfold(false);
    menu.focus();
  });

  // The section that is being read is marked in the list.
  const links = new Map(all("a", nav).map((link) => [link.hash.slice(1), link]));
  const headings = [...links.keys()].map((id) => document.getElementById(id));
  const mark = () => {
    const read = headings.findLast((heading) => heading.getBoundingClientRect().top < 160) ?? headings[0];
    for (const [id, link] of links) {
      if (id === read.id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  mark();
  let asked = false;
  addEventListener("scroll", () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; mark(); });
  }, { passive: true });

  return { download, unpack };
})();
