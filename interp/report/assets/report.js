"use strict";
// Draws each figure from the JSON beside it. Colours follow the style sheet, in light and dark.
(() => {
  const config = {
    responsive: true,
    displaylogo: false,
    // No button that would send a figure away.
    showSendToCloud: false,
    plotlyServerURL: "",
  };
  const plots = [...document.querySelectorAll("[data-figure]")];
  for (const plot of plots) {
    const { data, layout } = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
    Plotly.newPlot(plot, data, layout, config);
  }
  // Paper has a width of its own, and folded texts should be on it.
  const printWidth = 660;
  const folded = [...document.querySelectorAll("details")];
  let wereOpen = [];
  addEventListener("beforeprint", () => {
    wereOpen = folded.map((item) => item.open);
    for (const item of folded) item.open = true;
    for (const plot of plots) Plotly.relayout(plot, { width: printWidth });
  });
  addEventListener("afterprint", () => {
    folded.forEach((item, i) => { item.open = wereOpen[i] ?? item.open; });
    for (const plot of plots) Plotly.relayout(plot, { width: null, autosize: true });
  });
})();
